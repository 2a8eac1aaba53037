// A member of a consume-transform-produce pipeline, as a process of its own that can be killed and stopped:
//
//     PipelineMember {"bootstrap", "group", "input", "outputs": [plain, spread], "partitions", "writer",
//                     "seed", "aborts": share, "timeout": ms, "consumer": {...}, "producer": {...}}
//
// It makes one transaction of what each poll gives it, and ends some of them with an abort of its own will;
// transaction_ledger.py says what it writes. What it does is told as JSON lines: `opened` (a new
// producer), `committed` (with the offsets), `aborted`, `unknown`, and `trouble` with the errors that the
// clients raised and whether the transaction had outlived its timeout by then. It goes on after errors as an
// application should: aborts and tries again, or makes itself new clients; it ends when it learns that
// another has taken its place. "leave" on stdin makes it leave; its last words are `closed`.
// pipeline_member.py is its like.

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Random;
import java.util.Set;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.ApplicationRecoverableException;
import org.apache.kafka.common.errors.InvalidProducerEpochException;
import org.apache.kafka.common.errors.RetriableException;
import org.apache.kafka.common.errors.TimeoutException;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

public final class PipelineMember {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final int PATIENCE = 60; // calls that time out before this is an error

    private static volatile boolean leaving;

    private final JsonNode settings;
    private final Random dice;
    private final int partitions;
    private final long timeoutNanos;
    private KafkaConsumer<String, String> consumer;
    private KafkaProducer<String, String> producer;
    private int attempt;
    private long began;

    /** Another producer of this transactional id has been started. */
    private static final class Replaced extends Exception {}

    private interface Call {
        void run();
    }

    public static void main(String[] arguments) throws Exception {
        Thread listener = new Thread(PipelineMember::listen);
        listener.setDaemon(true);
        listener.start();
        new PipelineMember(JSON.readTree(arguments[0])).work();
    }

    private static void listen() {
        try (BufferedReader words = new BufferedReader(new InputStreamReader(System.in))) {
            words.readLine();
        } catch (java.io.IOException gone) {
            // nobody is there to say anything
        }
        leaving = true;
    }

    private PipelineMember(JsonNode settings) {
        this.settings = settings;
        dice = new Random(settings.get("seed").asLong());
        partitions = settings.get("partitions").asInt();
        timeoutNanos = Duration.ofMillis(settings.get("timeout").asLong()).toNanos();
    }

    private void work() throws Exception {
        try {
            while (!leaving) {
                if (producer == null) openProducer();
                if (consumer == null) openConsumer();
                step();
            }
        } catch (Replaced by) {
            tell("replaced", Map.of());
        }
        closeProducer();
        if (consumer != null) consumer.close();
        tell("closed", Map.of());
    }

    // --- one transaction ------------------------------------------------------------------------------

    private void step() throws Replaced {
        List<ConsumerRecord<String, String>> batch = new ArrayList<>();
        try {
            consumer.poll(Duration.ofMillis(200)).forEach(batch::add);
        } catch (KafkaException error) {
            trouble("poll", error);
            closeConsumer();
        }
        if (batch.isEmpty()) return;
        attempt++;
        began = System.nanoTime();
        boolean fails = dice.nextDouble() < settings.get("aborts").asDouble();
        try {
            producer.beginTransaction();
            write(batch, fails);
            if (fails) {
                end("abort", producer::abortTransaction);
            } else {
                end("commit", producer::commitTransaction);
            }
        } catch (KafkaException error) {
            tellEnd(giveUp(error), batch);
            rewind();
            return;
        }
        tellEnd(fails ? "aborted" : "committed", batch);
        if (fails) rewind();
    }

    private void write(List<ConsumerRecord<String, String>> batch, boolean fails) {
        String fate = fails ? "abort" : "commit";
        for (int index = 0; index < batch.size(); index++) {
            ConsumerRecord<String, String> input = batch.get(index);
            int number = Integer.parseInt(input.value());
            String value = String.join(" ", input.value(), settings.get("writer").asText(), "" + attempt, "" + index,
                "" + batch.size(), fate);
            producer.send(new ProducerRecord<>(output(0), input.partition(), null, value));
            producer.send(new ProducerRecord<>(output(1), number / partitions % partitions, null, value));
        }
        // Which of these have reached the broker when it is aborted is left to chance.
        if (fails && dice.nextBoolean()) producer.flush();
        if (!fails || dice.nextBoolean()) producer.sendOffsetsToTransaction(ends(batch), consumer.groupMetadata());
    }

    private String output(int index) {
        return settings.get("outputs").get(index).asText();
    }

    private static Map<TopicPartition, OffsetAndMetadata> ends(List<ConsumerRecord<String, String>> batch) {
        Map<TopicPartition, OffsetAndMetadata> ends = new HashMap<>();
        for (ConsumerRecord<String, String> input : batch) {
            TopicPartition partition = new TopicPartition(input.topic(), input.partition());
            ends.put(partition, new OffsetAndMetadata(input.offset() + 1));
        }
        return ends;
    }

    /** Commits or aborts; a call that timed out is to be made again. */
    private void end(String what, Call call) {
        for (int times = 1; ; times++) {
            try {
                call.run();
                return;
            } catch (TimeoutException error) {
                trouble(what, error);
                if (times == PATIENCE) throw error;
            }
        }
    }

    /** Ends a transaction that can't be committed, and returns what has become of it. */
    private String giveUp(KafkaException error) throws Replaced {
        trouble("transaction", error);
        if (!isFatal(error)) {
            try {
                end("abort", producer::abortTransaction);
                return "aborted";
            } catch (KafkaException worse) {
                trouble("abort", worse);
                error = worse;
            }
        }
        // Within the timeout nobody but a successor can have fenced it.
        if (isFencing(error) && !hasOutlived()) throw new Replaced();
        closeProducer();
        if (leaving) throw new Replaced();
        openProducer();
        return "unknown";
    }

    /** Whether the transaction has lasted for longer than it may. */
    private boolean hasOutlived() {
        return System.nanoTime() - began >= timeoutNanos;
    }

    private static boolean isFatal(Throwable error) {
        return isFencing(error) && !(root(error) instanceof InvalidProducerEpochException);
    }

    private static boolean isFencing(Throwable error) {
        return root(error) instanceof ApplicationRecoverableException
            || root(error) instanceof InvalidProducerEpochException;
    }

    private static Throwable root(Throwable error) {
        return error.getCause() == null ? error : root(error.getCause());
    }

    /** Goes back to where the group is. */
    private void rewind() {
        for (int times = 1; consumer != null; times++) {
            try {
                Set<TopicPartition> mine = consumer.assignment();
                Map<TopicPartition, OffsetAndMetadata> committed = consumer.committed(mine);
                for (TopicPartition partition : mine) {
                    OffsetAndMetadata end = committed.get(partition);
                    consumer.seek(partition, end == null ? 0 : end.offset());
                }
                return;
            } catch (KafkaException error) {
                trouble("rewind", error);
                if (!(root(error) instanceof RetriableException) || times == PATIENCE) closeConsumer();
            }
        }
    }

    // --- the clients ----------------------------------------------------------------------------------

    private void openConsumer() {
        Properties chosen = properties("consumer");
        chosen.put("group.id", settings.get("group").asText());
        chosen.put("isolation.level", "read_committed");
        chosen.put("enable.auto.commit", "false");
        chosen.put("auto.offset.reset", "earliest");
        consumer = new KafkaConsumer<>(chosen, new StringDeserializer(), new StringDeserializer());
        consumer.subscribe(List.of(settings.get("input").asText()));
    }

    private void openProducer() {
        Properties chosen = properties("producer");
        chosen.put("transaction.timeout.ms", settings.get("timeout").asText());
        producer = new KafkaProducer<>(chosen, new StringSerializer(), new StringSerializer());
        end("init", producer::initTransactions);
        tell("opened", Map.of());
    }

    private Properties properties(String client) {
        Properties chosen = new Properties();
        settings.get(client).properties().forEach(one -> chosen.put(one.getKey(), one.getValue().asText()));
        chosen.put("bootstrap.servers", settings.get("bootstrap").asText());
        return chosen;
    }

    private void closeProducer() {
        if (producer != null) producer.close(Duration.ZERO);
        producer = null;
    }

    private void closeConsumer() {
        consumer.close();
        consumer = null;
    }

    // --- what it tells --------------------------------------------------------------------------------

    private void tellEnd(String outcome, List<ConsumerRecord<String, String>> batch) {
        Map<String, Object> about = new LinkedHashMap<>();
        about.put("attempt", attempt);
        if (outcome.equals("committed")) {
            Map<Integer, Long> offsets = new HashMap<>();
            ends(batch).forEach((partition, end) -> offsets.put(partition.partition(), end.offset()));
            about.put("offsets", offsets);
        }
        tell(outcome, about);
    }

    private void trouble(String when, Throwable error) {
        List<String> chain = new ArrayList<>();
        for (Throwable one = error; one != null; one = one.getCause()) {
            chain.add(one.getClass().getSimpleName() + ": " + one.getMessage());
        }
        Map<String, Object> about = new LinkedHashMap<>();
        about.put("when", when);
        about.put("attempt", attempt);
        about.put("name", root(error).getClass().getSimpleName());
        about.put("errors", chain);
        about.put("outlived", hasOutlived());
        tell("trouble", about);
    }

    private static void tell(String event, Map<String, Object> about) {
        Map<String, Object> line = new LinkedHashMap<>();
        line.put("event", event);
        line.putAll(about);
        try {
            System.out.println(JSON.writeValueAsString(line));
        } catch (com.fasterxml.jackson.core.JsonProcessingException impossible) {
            throw new IllegalStateException(impossible);
        }
    }
}
