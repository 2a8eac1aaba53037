// Runs Kafka's command line tools one after the other in one JVM, because starting a JVM for each costs
// more than most tools do. Every line of stdin is a request and is answered with a line on stdout, both
// JSON: {"main": class, "arguments": [...], "stdin": text} and {"code": n, "out": text, "err": text}.
//
// A tool that exits ends there, as in a process of its own: nothing that it prints or calls while it
// unwinds counts. What it leaves in static fields stays, so tools that count in one (the console
// consumer) are run as processes instead.

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.util.Map;
import java.util.stream.StreamSupport;
import org.apache.kafka.common.utils.Exit;

import static java.nio.charset.StandardCharsets.UTF_8;

public final class ToolHost {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final Captured OUT = new Captured();
    private static final Captured ERR = new Captured();

    /** The code the running tool has exited with; null while it has not. */
    private static Integer exitCode;

    /** Unwinds a tool that has exited. */
    private static final class Exited extends Error {
        Exited() {
            super("exited", null, false, false);
        }
    }

    /** Keeps what is written until the tool has exited. */
    private static final class Captured extends OutputStream {
        private final ByteArrayOutputStream bytes = new ByteArrayOutputStream();
        private boolean open;

        @Override
        public synchronized void write(int one) {
            if (open) bytes.write(one);
        }

        @Override
        public synchronized void write(byte[] some, int from, int length) {
            if (open) bytes.write(some, from, length);
        }

        synchronized void begin() {
            bytes.reset();
            open = true;
        }

        synchronized void end() {
            open = false;
        }

        synchronized String text() {
            return bytes.toString(UTF_8);
        }
    }

    public static void main(String[] arguments) throws IOException {
        BufferedReader requests = new BufferedReader(new InputStreamReader(System.in, UTF_8));
        PrintStream answers = new PrintStream(new FileOutputStream(FileDescriptor.out), true, UTF_8);
        System.setOut(new PrintStream(OUT, true, UTF_8));
        System.setErr(new PrintStream(ERR, true, UTF_8));
        Exit.setExitProcedure((code, message) -> exit(code));
        Exit.setHaltProcedure((code, message) -> exit(code));
        for (String line = requests.readLine(); line != null; line = requests.readLine()) {
            answers.println(JSON.writeValueAsString(answer(JSON.readTree(line))));
        }
        Runtime.getRuntime().halt(0); // whatever threads the tools left
    }

    private static Map<String, Object> answer(JsonNode request) {
        System.setIn(new ByteArrayInputStream(request.get("stdin").asText().getBytes(UTF_8)));
        String[] arguments = StreamSupport.stream(request.get("arguments").spliterator(), false)
            .map(JsonNode::asText)
            .toArray(String[]::new);
        exitCode = null;
        OUT.begin();
        ERR.begin();
        int code = run(request.get("main").asText(), arguments);
        OUT.end();
        ERR.end();
        return Map.of("code", code, "out", OUT.text(), "err", ERR.text());
    }

    /** The code that a process of its own would have ended with. */
    private static int run(String name, String[] arguments) {
        try {
            Method main = Class.forName(name).getMethod("main", String[].class);
            main.invoke(null, (Object) arguments);
        } catch (InvocationTargetException thrown) {
            if (exitCode == null) {
                thrown.getCause().printStackTrace();
                return 1;
            }
        } catch (ReflectiveOperationException unknown) {
            unknown.printStackTrace();
            return 1;
        }
        return exitCode == null ? 0 : exitCode;
    }

    private static void exit(int code) {
        if (exitCode == null) {
            exitCode = code;
            OUT.end();
            ERR.end();
        }
        throw new Exited();
    }
}
