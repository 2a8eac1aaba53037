// A worker of the black box with Kafka's own client: the second protocol of transactions, both protocols of
// groups. blackbox_worker.py is its like and says what it is told and what it writes:
//
//     BlackboxWorker SETTINGS

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Collections;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Random;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.function.Supplier;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ListOffsetsOptions;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.consumer.CommitFailedException;
import org.apache.kafka.clients.consumer.ConsumerGroupMetadata;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.IsolationLevel;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.ApplicationRecoverableException;
import org.apache.kafka.common.errors.FencedInstanceIdException;
import org.apache.kafka.common.errors.InvalidTopicException;
import org.apache.kafka.common.errors.InvalidTxnStateException;
import org.apache.kafka.common.errors.OutOfOrderSequenceException;
import org.apache.kafka.common.errors.ProducerFencedException;
import org.apache.kafka.common.errors.RebalanceInProgressException;
import org.apache.kafka.common.errors.TimeoutException;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

public final class BlackboxWorker {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final long NUMBERS = 1_000_000_000L; // values of one process
    private static final int DELIVERY = 12_000; // ms that a record is tried for
    private static final long CALL = 15; // seconds that a call may take
    private static final long FINAL = 200; // seconds that the last reading may take
    private static final double ABORTS = 0.1; // of transactions
    private static final double BIG = 0.03; // of records are too big for the log and go to the store

    /** Nobody knows whether the operation has happened. */
    private static final class Doubt extends Exception {}

    private interface Call {
        void run() throws KafkaException;
    }

    private static final LinkedBlockingQueue<JsonNode> ORDERS = new LinkedBlockingQueue<>();

    private final JsonNode settings;
    private final Random dice;
    private final Map<String, Integer> topics = new TreeMap<>();
    private final Map<String, Long> ends = new HashMap<>(); // behind the last record that was read, of all processes
    private final List<String> active = new ArrayList<>();
    private JsonNode last; // what is to be read at the end

    private long process;
    private long counter;
    private long ops;
    private FileOutputStream history;
    private KafkaProducer<String, String> producer;
    private KafkaProducer<String, String> transactor;
    private boolean transactorIsReady;
    private Admin admin;
    private KafkaConsumer<String, String> consumer;
    private String group = "";
    private String protocol;
    private Set<String> owned = new TreeSet<>();
    private Map<String, Long> positions = new TreeMap<>(); // the next to be read
    private final List<Long> along = new ArrayList<>(); // commits of the transaction

    public static void main(String[] arguments) throws Exception {
        Thread listener = new Thread(BlackboxWorker::listen);
        listener.setDaemon(true);
        listener.start();
        new BlackboxWorker(JSON.readTree(arguments[0])).work();
        Runtime.getRuntime().halt(0);
    }

    private static void listen() {
        try (BufferedReader words = new BufferedReader(new InputStreamReader(System.in))) {
            for (String line = words.readLine(); line != null; line = words.readLine()) ORDERS.add(JSON.readTree(line));
        } catch (IOException gone) {
            // nobody is there any more
        }
        Runtime.getRuntime().halt(0);
    }

    private BlackboxWorker(JsonNode settings) {
        this.settings = settings;
        dice = new Random(settings.get("seed").asLong());
        process = settings.get("process").asLong() - 1;
    }

    private void hear(JsonNode order) {
        if (order == null) return;
        if (order.has("topics")) {
            order.get("topics").properties().forEach(one -> topics.put(one.getKey(), one.getValue().asInt()));
        }
        if (order.has("active")) {
            active.clear();
            order.get("active").forEach(one -> active.add(one.asText()));
        }
        if (order.has("final")) last = order.get("final");
    }

    private void work() throws Exception {
        hear(ORDERS.take());
        begin();
        while (true) {
            for (JsonNode order = ORDERS.poll(); order != null; order = ORDERS.poll()) hear(order);
            if (last != null) break;
            try {
                step(choose());
            } catch (Doubt doubt) {
                begin();
            }
            Thread.sleep((long) (dice.nextDouble() * 2000 * settings.get("pace").asDouble()));
        }
        finish();
    }

    private String choose() {
        if (dice.nextInt(64) == 0) return dice.nextBoolean() ? "assign" : "subscribe";
        int sum = 0;
        for (Map.Entry<String, JsonNode> one : settings.get("mix").properties()) sum += one.getValue().asInt();
        int drawn = dice.nextInt(sum);
        for (Map.Entry<String, JsonNode> one : settings.get("mix").properties()) {
            drawn -= one.getValue().asInt();
            if (drawn < 0) return one.getKey();
        }
        throw new IllegalStateException();
    }

    private void step(String name) throws Doubt {
        switch (name) {
            case "send" -> send();
            case "poll" -> poll();
            case "txn" -> txn();
            case "assign" -> assign();
            case "subscribe" -> subscribe();
            case "seek" -> seek();
            case "list_offsets" -> listOffsets();
            case "commit" -> commit();
            case "committed" -> committed();
            default -> throw new IllegalArgumentException(name);
        }
    }

    // --- clients --------------------------------------------------------------------------------------

    /** Becomes the next process, with new clients. */
    private void begin() {
        if (producer != null) {
            closeApart(producer);
            closeApart(transactor);
            admin.close(Duration.ZERO);
            giveUpConsumer();
        }
        process++;
        counter = 0;
        ops = 0;
        along.clear();
        try {
            if (history != null) history.close();
            history = new FileOutputStream(settings.get("history").asText() + "/process-" + process + ".jsonl", true);
        } catch (IOException broken) {
            throw new IllegalStateException(broken);
        }
        fact("header", about("client", "java", "isolation", "read_committed", "idempotent", true, "transactional", true,
            "tv", 2, "transaction_timeout_ms", DELIVERY));
        producer = new KafkaProducer<>(writing(), new StringSerializer(), new StringSerializer());
        Properties own = writing();
        own.put("transactional.id", settings.get("transactional_id").asText());
        own.put("transaction.timeout.ms", "" + DELIVERY);
        transactor = new KafkaProducer<>(own, new StringSerializer(), new StringSerializer());
        transactorIsReady = false;
        admin = Admin.create(common());
        assign();
    }

    private static void closeApart(KafkaProducer<String, String> producer) {
        Thread closer = new Thread(() -> producer.close(Duration.ZERO));
        closer.setDaemon(true);
        closer.start();
    }

    private Properties common() {
        Properties chosen = new Properties();
        chosen.put("bootstrap.servers", settings.get("bootstrap").asText());
        chosen.put("request.timeout.ms", "5000");
        chosen.put("default.api.timeout.ms", "15000");
        chosen.put("reconnect.backoff.max.ms", "500");
        return chosen;
    }

    private Properties writing() {
        Properties chosen = common();
        chosen.remove("default.api.timeout.ms");
        chosen.put("delivery.timeout.ms", "" + DELIVERY);
        chosen.put("max.block.ms", "" + DELIVERY);
        chosen.put("linger.ms", "2");
        chosen.put("metadata.max.age.ms", "5000");
        return chosen;
    }

    private void openConsumer(String of, String with) {
        giveUpConsumer();
        group = of;
        protocol = with;
        Properties chosen = common();
        chosen.put("group.id", of);
        chosen.put("group.protocol", with);
        if (with.equals("classic")) {
            chosen.put("session.timeout.ms", "6000");
            chosen.put("heartbeat.interval.ms", "1000");
        }
        chosen.put("isolation.level", "read_committed");
        chosen.put("enable.auto.commit", "false");
        chosen.put("auto.offset.reset", "earliest");
        chosen.put("fetch.max.wait.ms", "100");
        chosen.put("max.poll.records", "100");
        chosen.put("metadata.max.age.ms", "5000");
        consumer = new KafkaConsumer<>(chosen, new StringDeserializer(), new StringDeserializer());
    }

    /** Closes it where nobody waits for it: it may take long to leave a group that does not answer. */
    private void giveUpConsumer() {
        if (consumer == null) return;
        KafkaConsumer<String, String> closing = consumer;
        consumer = null;
        Thread closer = new Thread(() -> {
            try {
                closing.close();
            } catch (KafkaException broken) {
                // it is given up
            }
        });
        closer.setDaemon(true);
        closer.start();
    }

    // --- writing --------------------------------------------------------------------------------------

    /** `count` steps as they are before anything is known of them. */
    private List<Object[]> newSends(int count) {
        List<Object[]> steps = new ArrayList<>();
        for (int n = 0; n < count; n++) {
            String topic = active.get(dice.nextInt(active.size()));
            counter++;
            String key = topic + "/" + dice.nextInt(topics.get(topic));
            steps.add(new Object[] {"send", key, process * NUMBERS + counter});
        }
        return steps;
    }

    private Future<RecordMetadata> produce(KafkaProducer<String, String> by, Object[] step) {
        TopicPartition place = placeOf((String) step[1]);
        int size = dice.nextDouble() < BIG ? 10_000 : 1 + dice.nextInt(200);
        StringBuilder filler = new StringBuilder();
        for (int n = 0; n < size; n++) filler.append((char) ('a' + dice.nextInt(8)));
        long value = (long) step[2];
        String text = value + " " + step[1] + " " + process + " " + filler;
        String key = Long.toString(value);
        return by.send(new ProducerRecord<>(place.topic(), place.partition(), key, text + " " + digest(text)));
    }

    /** The step with the offset, where that is known. */
    private static Object[] completed(Object[] step, Future<RecordMetadata> answer) {
        Long offset = null;
        try {
            if (answer != null && answer.isDone()) offset = answer.get().offset();
        } catch (ExecutionException | InterruptedException failed) {
            // it has none
        }
        return new Object[] {"send", step[1], new Object[] {offset == null || offset < 0 ? null : offset, step[2]}};
    }

    private void send() throws Doubt {
        List<Object[]> steps = newSends(1 + dice.nextInt(4));
        long op = invoke("send", about("mops", steps));
        List<Future<RecordMetadata>> answers = new ArrayList<>();
        List<Throwable> errors = new ArrayList<>();
        for (Object[] step : steps) {
            try {
                answers.add(produce(producer, step));
            } catch (KafkaException refused) {
                answers.add(null);
                errors.add(refused);
            }
        }
        List<Object[]> done = new ArrayList<>();
        for (int n = 0; n < steps.size(); n++) {
            Future<RecordMetadata> answer = answers.get(n);
            try {
                if (answer != null) answer.get(DELIVERY + CALL * 1000, TimeUnit.MILLISECONDS);
            } catch (ExecutionException failed) {
                errors.add(failed.getCause());
            } catch (java.util.concurrent.TimeoutException | InterruptedException late) {
                errors.add(late);
            }
            done.add(completed(steps.get(n), answer));
        }
        if (errors.isEmpty()) {
            complete("ok", "send", op, about("mops", done));
        } else if (errors.size() == steps.size() && errors.stream().allMatch(BlackboxWorker::isRefusal)) {
            complete("fail", "send", op, about("error", errors.get(0).toString()));
            throw new Doubt();
        } else {
            // What is known of the others goes with it.
            complete("info", "send", op, about("mops", done, "error", errors.get(0).toString()));
            throw new Doubt();
        }
    }

    private static boolean isRefusal(Throwable error) {
        return error instanceof OutOfOrderSequenceException
            || error instanceof ProducerFencedException
            || error instanceof InvalidTxnStateException
            || error instanceof InvalidTopicException
            || error instanceof UnknownTopicOrPartitionException;
    }

    // --- reading --------------------------------------------------------------------------------------

    private Map<String, List<Object[]>> read(int ms) {
        Map<String, List<Object[]>> found = new TreeMap<>();
        try {
            for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(ms))) {
                String key = record.topic() + "/" + record.partition();
                positions.put(key, record.offset() + 1);
                ends.merge(key, record.offset() + 1, Math::max);
                Long value = decode(record.value(), key);
                if (value == null) {
                    String shown = "" + record.value();
                    fact("misplaced", about("key", key, "offset", record.offset(), "note",
                        shown.substring(0, Math.min(200, shown.length()))));
                    continue;
                }
                found.computeIfAbsent(key, one -> new ArrayList<>()).add(new Object[] {record.offset(), value});
            }
        } catch (KafkaException error) {
            fact("note", about("note", Map.of("poll", error.toString())));
        }
        return found;
    }

    /** The number, or null if this does not belong here. */
    private static Long decode(String data, String key) {
        if (data == null) return null;
        int end = data.lastIndexOf(' ');
        String[] words = data.split(" ");
        if (words.length != 5 || !words[4].equals(digest(data.substring(0, end))) || !words[1].equals(key)) return null;
        long value = Long.parseLong(words[0]);
        return value / NUMBERS == Long.parseLong(words[2]) ? value : null;
    }

    private void poll() {
        long op = invoke("poll", about("mops", List.<Object>of(List.of("poll")), "isolation", "read_committed"));
        Map<String, List<Object[]>> found = read(300);
        complete("ok", "poll", op, about("mops", List.<Object>of(List.of("poll", found))));
    }

    private List<String> allKeys() {
        List<String> keys = new ArrayList<>();
        topics.forEach((topic, count) -> {
            for (int n = 0; n < count; n++) keys.add(topic + "/" + n);
        });
        return keys;
    }

    private void assign() {
        List<String> keys = allKeys();
        Collections.shuffle(keys, dice);
        TreeSet<String> chosen = new TreeSet<>(keys.subList(0, Math.min(keys.size(), 1 + dice.nextInt(4))));
        if (dice.nextInt(3) == 0) {
            chosen.clear();
            keys.stream().filter(key -> !ends.containsKey(key)).limit(3).forEach(chosen::add);
            keys.stream().filter(key -> active.contains(placeOf(key).topic())).limit(2).forEach(chosen::add);
        }
        openConsumer(settings.get("group").asText() + "-alone-" + process, "classic");
        boolean known = dice.nextInt(3) > 0;
        Map<String, Long> at = new TreeMap<>();
        for (String key : chosen) at.put(key, known ? ends.getOrDefault(key, 0L) : 0L);
        assign(at);
    }

    private void assign(Map<String, Long> at) {
        owned = new TreeSet<>(at.keySet());
        positions = new TreeMap<>(at);
        long op = invoke("assign", about("keys", owned, "offsets", at));
        consumer.assign(owned.stream().map(BlackboxWorker::placeOf).toList());
        at.forEach((key, offset) -> consumer.seek(placeOf(key), offset));
        complete("ok", "assign", op, about());
    }

    private void subscribe() {
        String with = dice.nextBoolean() ? "classic" : "consumer";
        openConsumer(settings.get("group").asText() + "-" + with, with);
        positions = new TreeMap<>();
        owned = new TreeSet<>();
        long op = invoke("subscribe", about("topics", active, "group", group));
        KafkaConsumer<String, String> mine = consumer;
        consumer.subscribe(List.copyOf(active), new ConsumerRebalanceListener() {
            @Override
            public void onPartitionsAssigned(Collection<TopicPartition> gained) {
                if (mine == consumer) moved(gained, List.of());
            }

            @Override
            public void onPartitionsRevoked(Collection<TopicPartition> gone) {
                if (mine == consumer) moved(List.of(), gone);
            }
        });
        complete("ok", "subscribe", op, about());
    }

    private void moved(Collection<TopicPartition> gained, Collection<TopicPartition> gone) {
        TreeSet<String> keys = new TreeSet<>();
        gained.forEach(one -> keys.add(keyOf(one)));
        owned.addAll(keys);
        gone.forEach(one -> owned.remove(keyOf(one)));
        gone.forEach(one -> keys.add(keyOf(one)));
        if (keys.isEmpty()) return;
        keys.forEach(positions::remove);
        fact("rebalance", about("keys", keys));
        if (gained.isEmpty()) return;
        Map<String, Object> membership = membership();
        membership.put("keys", owned);
        fact("assigned", membership);
    }

    private Map<String, Object> membership() {
        if (!isSubscribed()) return about("group", group);
        ConsumerGroupMetadata mine = consumer.groupMetadata();
        return about("group", group, "generation", mine.generationId(), "member", mine.memberId(), "protocol",
            protocol);
    }

    private boolean isSubscribed() {
        return !group.contains("-alone-");
    }

    private void seek() {
        if (positions.isEmpty()) return;
        List<String> keys = new ArrayList<>(positions.keySet());
        String key = keys.get(dice.nextInt(keys.size()));
        seekTo(key, (long) (dice.nextDouble() * (ends.getOrDefault(key, 0L) + 1)));
    }

    private void seekTo(String key, long offset) {
        long op = invoke("seek", about("key", key, "offset", offset));
        try {
            consumer.seek(placeOf(key), offset);
        } catch (IllegalStateException | KafkaException notMine) {
            complete("info", "seek", op, about("error", notMine.toString()));
            return;
        }
        positions.put(key, offset);
        complete("ok", "seek", op, about());
    }

    // --- transactions ---------------------------------------------------------------------------------

    private void txn() throws Doubt {
        if (!transactorIsReady) {
            try {
                insist(transactor::initTransactions);
            } catch (KafkaException error) {
                fact("note", about("note", Map.of("init", error.toString())));
                throw new Doubt();
            }
            transactorIsReady = true;
        }
        List<Object> steps = new ArrayList<>();
        int count = dice.nextInt(5);
        for (int n = 0; n < count; n++) steps.add(dice.nextInt(3) < 2 ? newSends(1).get(0) : List.of("poll"));
        boolean aborts = dice.nextDouble() < ABORTS;
        long op = invoke("txn", about("mops", steps, "tv", 2, "isolation", "read_committed"));
        Map<String, Long> before = new TreeMap<>(positions);
        List<Supplier<Object>> done = new ArrayList<>();
        try {
            transactor.beginTransaction();
            for (Object step : steps) {
                if (step instanceof Object[] sent) {
                    Future<RecordMetadata> answer = produce(transactor, sent);
                    done.add(() -> completed(sent, answer));
                } else {
                    List<Object> polled = List.of("poll", read(300));
                    done.add(() -> polled);
                }
            }
            takeAlong(before);
            insist(aborts ? transactor::abortTransaction : transactor::commitTransaction);
        } catch (KafkaException error) {
            giveUp(error, op, before);
            return;
        }
        endAlong(aborts ? "fail" : "ok");
        Map<String, Object> end = about("mops", done.stream().map(Supplier::get).toList(), "committed", !aborts);
        if (aborts) end.put("aborted", true);
        complete(aborts ? "fail" : "ok", "txn", op, end);
        if (aborts) rewind(before);
    }

    /**
     * Commits with the transaction what it has read, if it reads as a member of a group. For the history these are
     * commits of their own: they may happen although the worker does not live to tell of the transaction.
     */
    private void takeAlong(Map<String, Long> before) {
        along.clear();
        Map<String, Long> moved = new TreeMap<>(positions);
        moved.entrySet().removeIf(one -> one.getValue().equals(before.get(one.getKey())));
        if (moved.isEmpty() || !isSubscribed()) return;
        Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
        moved.forEach((key, end) -> {
            offsets.put(placeOf(key), new OffsetAndMetadata(end));
            Map<String, Object> commit = membership();
            commit.put("key", key);
            commit.put("offset", end);
            along.add(invoke("commit", commit));
        });
        transactor.sendOffsetsToTransaction(offsets, consumer.groupMetadata());
    }

    private void endAlong(String stage) {
        along.forEach(op -> complete(stage, "commit", op, about()));
        along.clear();
    }

    /** Ends a transaction that can't be committed. */
    private void giveUp(KafkaException error, long op, Map<String, Long> before) throws Doubt {
        boolean fatal = root(error) instanceof ApplicationRecoverableException
            || root(error) instanceof ProducerFencedException
            || error instanceof TimeoutException;
        if (!fatal) {
            try {
                insist(transactor::abortTransaction);
                endAlong("fail");
                complete("fail", "txn", op, about("committed", false, "error", error.toString()));
                rewind(before);
                return;
            } catch (KafkaException | IllegalStateException worse) {
                // it is not known how it ended
            }
        }
        endAlong("info");
        complete("info", "txn", op, about("error", error + " by " + root(error)));
        throw new Doubt();
    }

    private static Throwable root(Throwable error) {
        return error.getCause() == null ? error : root(error.getCause());
    }

    /** Makes a call, again while it times out and there is time. */
    private static void insist(Call call) {
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(2 * CALL);
        while (true) {
            try {
                call.run();
                return;
            } catch (TimeoutException error) {
                if (System.nanoTime() > deadline) throw error;
            }
        }
    }

    private void rewind(Map<String, Long> before) {
        for (Map.Entry<String, Long> one : new TreeMap<>(positions).entrySet()) {
            if (!one.getValue().equals(before.get(one.getKey()))) {
                seekTo(one.getKey(), before.getOrDefault(one.getKey(), 0L));
            }
        }
    }

    // --- questions ------------------------------------------------------------------------------------

    private void listOffsets() {
        List<String> names = new ArrayList<>(topics.keySet());
        String topic = names.get(dice.nextInt(names.size()));
        String key = topic + "/" + dice.nextInt(topics.get(topic));
        long op = invoke("list_offsets", about("key", key, "isolation", "read_uncommitted"));
        try {
            long end = admin.listOffsets(Map.of(placeOf(key), OffsetSpec.latest()),
                    new ListOffsetsOptions(IsolationLevel.READ_UNCOMMITTED))
                .partitionResult(placeOf(key)).get(CALL, TimeUnit.SECONDS).offset();
            complete("ok", "list_offsets", op, about("end", end));
        } catch (ExecutionException | java.util.concurrent.TimeoutException | InterruptedException error) {
            complete("fail", "list_offsets", op, about("error", "" + root(error)));
        }
    }

    private void commit() throws Doubt {
        if (positions.isEmpty()) return;
        List<String> keys = new ArrayList<>(positions.keySet());
        String key = keys.get(dice.nextInt(keys.size()));
        Map<String, Object> what = membership();
        what.put("key", key);
        what.put("offset", positions.get(key));
        long op = invoke("commit", what);
        try {
            consumer.commitSync(Map.of(placeOf(key), new OffsetAndMetadata(positions.get(key))));
            complete("ok", "commit", op, about());
        } catch (CommitFailedException | RebalanceInProgressException | FencedInstanceIdException error) {
            complete("fail", "commit", op, about("error", error.toString()));
        } catch (KafkaException error) {
            complete("info", "commit", op, about("error", error.toString()));
            throw new Doubt();
        }
    }

    private void committed() {
        if (owned.isEmpty()) return;
        List<String> keys = new ArrayList<>(owned);
        String key = keys.get(dice.nextInt(keys.size()));
        Map<String, Object> what = membership();
        what.put("key", key);
        long op = invoke("committed", what);
        try {
            OffsetAndMetadata found = consumer.committed(Set.of(placeOf(key))).get(placeOf(key));
            complete("ok", "committed", op, about("offset", found == null ? -1 : found.offset()));
        } catch (KafkaException error) {
            complete("fail", "committed", op, about("error", error.toString()));
        }
    }

    // --- the end --------------------------------------------------------------------------------------

    private void finish() {
        begin();
        openConsumer(settings.get("group").asText() + "-alone-" + process + "-final", "classic");
        fact("final", about("note", last));
        Map<String, Long> at = new TreeMap<>();
        allKeys().forEach(key -> at.put(key, 0L));
        assign(at);
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(FINAL);
        while (true) {
            Map<String, Long> missing = new TreeMap<>();
            last.properties().forEach(one -> {
                long end = one.getValue().asLong();
                if (positions.get(one.getKey()) <= end) missing.put(one.getKey(), end);
            });
            if (missing.isEmpty()) break;
            if (System.nanoTime() > deadline) {
                fact("note", about("note", Map.of("missing", missing)));
                return;
            }
            poll();
        }
        poll();
        fact("note", about("note", Map.of("complete", true)));
    }

    // --- the history ----------------------------------------------------------------------------------

    private long invoke(String f, Map<String, Object> about) {
        write("invoke", f, ++ops, about);
        return ops;
    }

    private void complete(String stage, String f, long op, Map<String, Object> about) {
        write(stage, f, op, about);
    }

    private void fact(String f, Map<String, Object> about) {
        write("ok", f, 0, about);
    }

    private void write(String stage, String f, long op, Map<String, Object> about) {
        Map<String, Object> line = new LinkedHashMap<>();
        line.put("time_us", System.nanoTime() / 1000);
        line.put("process", process);
        if (op > 0) line.put("op", op);
        line.put("stage", stage);
        line.put("f", f);
        line.putAll(about);
        try {
            history.write((JSON.writeValueAsString(line) + "\n").getBytes(StandardCharsets.UTF_8));
        } catch (IOException broken) {
            throw new IllegalStateException(broken);
        }
    }

    private static Map<String, Object> about(Object... pairs) {
        Map<String, Object> map = new LinkedHashMap<>();
        for (int n = 0; n < pairs.length; n += 2) map.put((String) pairs[n], pairs[n + 1]);
        return map;
    }

    private static String keyOf(TopicPartition place) {
        return place.topic() + "/" + place.partition();
    }

    private static TopicPartition placeOf(String key) {
        int slash = key.lastIndexOf('/');
        return new TopicPartition(key.substring(0, slash), Integer.parseInt(key.substring(slash + 1)));
    }

    private static String digest(String text) {
        try {
            byte[] whole = MessageDigest.getInstance("SHA-256").digest(text.getBytes(StandardCharsets.UTF_8));
            return HexFormat.of().formatHex(whole, 0, 8);
        } catch (java.security.NoSuchAlgorithmException impossible) {
            throw new IllegalStateException(impossible);
        }
    }
}
