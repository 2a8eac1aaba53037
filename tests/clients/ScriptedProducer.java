// A transactional producer that does what it is told on stdin, line by line, and answers each line with one
// on stdout when it is done: "ok", or the error. Lines are "begin", "send TOPIC PARTITION VALUE", "flush",
// "commit" and "abort".
//
//     ScriptedProducer {its settings}

import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.util.Map;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.errors.TimeoutException;
import org.apache.kafka.common.serialization.StringSerializer;

public final class ScriptedProducer {
    private static KafkaProducer<String, String> producer;

    @SuppressWarnings("unchecked")
    public static void main(String[] arguments) throws IOException {
        Map<String, Object> settings = new ObjectMapper().readValue(arguments[0], Map.class);
        producer = new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer());
        producer.initTransactions();
        System.out.println("ok");
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            try {
                act(line);
                System.out.println("ok");
            } catch (KafkaException error) {
                System.out.println(error);
            }
        }
    }

    private static void act(String line) {
        String[] words = line.split(" ", 4);
        switch (words[0]) {
            case "begin" -> producer.beginTransaction();
            case "send" -> producer.send(new ProducerRecord<>(words[1], Integer.parseInt(words[2]), null, words[3]));
            case "flush" -> producer.flush();
            case "commit" -> insist(producer::commitTransaction);
            case "abort" -> insist(producer::abortTransaction);
            default -> throw new IllegalArgumentException(line);
        }
    }

    /** A call that timed out is to be made again. */
    private static void insist(Runnable call) {
        while (true) {
            try {
                call.run();
                return;
            } catch (TimeoutException again) {
                System.err.println(again);
            }
        }
    }
}
