// Reads all partitions of some topics from their beginning at read_committed, with no group, and tells every
// record as a line "TOPIC PARTITION OFFSET VALUE". Runs until it is killed.
//
//     CommittedReader BOOTSTRAP PARTITIONS TOPIC...

import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;

public final class CommittedReader {
    public static void main(String[] arguments) {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", arguments[0]);
        settings.put("isolation.level", "read_committed");
        settings.put("enable.auto.commit", "false");
        settings.put("auto.offset.reset", "none");
        settings.put("reconnect.backoff.max.ms", "500");
        settings.put("request.timeout.ms", "5000");
        List<TopicPartition> partitions = new ArrayList<>();
        for (String topic : List.of(arguments).subList(2, arguments.length)) {
            for (int index = 0; index < Integer.parseInt(arguments[1]); index++) {
                partitions.add(new TopicPartition(topic, index));
            }
        }
        try (var consumer = new KafkaConsumer<>(settings, new StringDeserializer(), new StringDeserializer())) {
            consumer.assign(partitions);
            partitions.forEach(partition -> consumer.seek(partition, 0));
            while (true) {
                for (ConsumerRecord<String, String> one : consumer.poll(Duration.ofMillis(200))) {
                    System.out.println(one.topic() + " " + one.partition() + " " + one.offset() + " " + one.value());
                }
            }
        }
    }
}
