// Producers and consumers of Kafka's Java client, any number of them in one JVM, led from outside. Every line
// of stdin is a request and is answered with a line on stdout, both JSON: {"do": what, "who": the client's
// name, ...} and {"told": value} or {"error": class of the exception, "message": text}.
//
// Requests are done one after the other; none waits for another client.

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import org.apache.kafka.clients.consumer.ConsumerGroupMetadata;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

import static java.nio.charset.StandardCharsets.UTF_8;

public final class ClientHost {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final Duration PATIENCE = Duration.ofSeconds(60);

    private final Map<String, KafkaProducer<String, String>> producers = new HashMap<>();
    private final Map<String, KafkaConsumer<String, String>> consumers = new HashMap<>();

    /** What consumers were in their groups when they were asked to remember it. */
    private final Map<String, ConsumerGroupMetadata> memberships = new HashMap<>();

    public static void main(String[] arguments) throws IOException {
        BufferedReader requests = new BufferedReader(new InputStreamReader(System.in, UTF_8));
        PrintStream answers = new PrintStream(new FileOutputStream(FileDescriptor.out), true, UTF_8);
        System.setOut(System.err);
        ClientHost host = new ClientHost();
        for (String line = requests.readLine(); line != null; line = requests.readLine()) {
            answers.println(JSON.writeValueAsString(host.answer(JSON.readTree(line))));
        }
        Runtime.getRuntime().halt(0); // clients that were not closed
    }

    private Map<String, Object> answer(JsonNode request) {
        Map<String, Object> answer = new HashMap<>();
        try {
            answer.put("told", act(request));
        } catch (Exception thrown) {
            Throwable cause = thrown instanceof ExecutionException ? thrown.getCause() : thrown;
            List<String> classes = new ArrayList<>();
            for (Throwable each = cause; each != null; each = each.getCause()) {
                classes.add(each.getClass().getSimpleName());
            }
            answer.put("error", classes);
            answer.put("message", String.valueOf(cause.getMessage()));
        }
        return answer;
    }

    private Object act(JsonNode request) throws Exception {
        String who = request.get("who").asText();
        switch (request.get("do").asText()) {
            case "produce with": {
                producers.put(
                    who, new KafkaProducer<>(settings(request), new StringSerializer(), new StringSerializer()));
                return null;
            }
            case "consume with": {
                consumers.put(
                    who, new KafkaConsumer<>(settings(request), new StringDeserializer(), new StringDeserializer()));
                return null;
            }
            case "init":
                producers.get(who).initTransactions();
                return null;
            case "begin":
                producers.get(who).beginTransaction();
                return null;
            case "commit":
                producers.get(who).commitTransaction();
                return null;
            case "abort":
                producers.get(who).abortTransaction();
                return null;
            case "send":
                return send(producers.get(who), request);
            case "send offsets": {
                ConsumerGroupMetadata group = request.has("member")
                    ? memberships.get(request.get("member").asText())
                    : new ConsumerGroupMetadata(request.get("group").asText());
                producers.get(who).sendOffsetsToTransaction(offsets(request.get("offsets")), group);
                return null;
            }
            case "remember":
                memberships.put(who, consumers.get(who).groupMetadata());
                return consumers.get(who).groupMetadata().generationId();
            case "subscribe":
                consumers.get(who).subscribe(List.of(request.get("topic").asText()));
                return null;
            case "poll":
                return poll(consumers.get(who), request.get("milliseconds").asLong());
            case "read": {
                consumers.get(who).assign(places(request));
                consumers.get(who).seekToBeginning(places(request));
                return read(consumers.get(who));
            }
            case "assignment": {
                List<Integer> partitions = new ArrayList<>();
                consumers.get(who).assignment().forEach(each -> partitions.add(each.partition()));
                return partitions;
            }
            case "ends": {
                Map<Integer, Long> ends = new HashMap<>();
                consumers.get(who).endOffsets(places(request))
                    .forEach((place, end) -> ends.put(place.partition(), end));
                return ends;
            }
            case "committed": {
                TopicPartition place = places(request).get(0);
                OffsetAndMetadata offset = consumers.get(who).committed(Set.of(place)).get(place);
                return offset == null ? null : offset.offset();
            }
            case "close":
                if (producers.containsKey(who)) producers.remove(who).close(Duration.ZERO);
                if (consumers.containsKey(who)) consumers.remove(who).close();
                return null;
            default:
                throw new IllegalArgumentException(request.toString());
        }
    }

    private static Properties settings(JsonNode request) {
        Properties settings = new Properties();
        request.get("settings").fields()
            .forEachRemaining(each -> settings.put(each.getKey(), each.getValue().asText()));
        return settings;
    }

    private static List<TopicPartition> places(JsonNode request) {
        List<TopicPartition> places = new ArrayList<>();
        for (JsonNode partition : request.get("partitions")) {
            places.add(new TopicPartition(request.get("topic").asText(), partition.asInt()));
        }
        return places;
    }

    private static Map<TopicPartition, OffsetAndMetadata> offsets(JsonNode offsets) {
        Map<TopicPartition, OffsetAndMetadata> found = new HashMap<>();
        offsets.fields().forEachRemaining(topic -> topic.getValue().fields().forEachRemaining(partition -> found.put(
            new TopicPartition(topic.getKey(), Integer.parseInt(partition.getKey())),
            new OffsetAndMetadata(partition.getValue().asLong()))));
        return found;
    }

    /** Sends values to a partition and returns their offsets, when all are acknowledged. */
    private static List<Long> send(KafkaProducer<String, String> producer, JsonNode request) throws Exception {
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        for (JsonNode value : request.get("values")) {
            sent.add(producer.send(new ProducerRecord<>(
                request.get("topic").asText(), request.get("partition").asInt(), null, value.asText())));
        }
        producer.flush();
        List<Long> offsets = new ArrayList<>();
        for (Future<RecordMetadata> each : sent) offsets.add(each.get().offset());
        return offsets;
    }

    /** What comes in a time, as [partition, offset, value]. */
    private static List<List<Object>> poll(KafkaConsumer<String, String> consumer, long milliseconds) {
        List<List<Object>> records = new ArrayList<>();
        for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(milliseconds))) {
            records.add(List.of(record.partition(), record.offset(), record.value()));
        }
        return records;
    }

    /** What there is from where the consumer stands to the ends of its partitions as they are now, likewise. */
    private static List<List<Object>> read(KafkaConsumer<String, String> consumer) {
        Map<TopicPartition, Long> ends = consumer.endOffsets(consumer.assignment());
        List<List<Object>> records = new ArrayList<>();
        long deadline = System.nanoTime() + PATIENCE.toNanos();
        while (ends.entrySet().stream().anyMatch(each -> consumer.position(each.getKey()) < each.getValue())) {
            if (System.nanoTime() > deadline) throw new IllegalStateException("not all of " + ends + " came");
            records.addAll(poll(consumer, 100));
        }
        return records;
    }
}
