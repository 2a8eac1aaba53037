package main

import (
	"context"
	"errors"
	"math/rand"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

type worker struct {
	settings settings
	dice     *rand.Rand
	topics   map[string]int
	active   []string
	last     map[string]int64 // what is to be read at the end
	ends     map[string]int64 // behind the last record that was read, of all processes

	process         int64
	counter         int64
	history         *history
	producer        *kgo.Client
	transactor      *kgo.Client
	consumer        *kgo.Client
	group, protocol string

	mutex     sync.Mutex       // of these, which move when a group does
	owned     map[string]bool  // what it reads
	isRead    map[string]bool  // and has read from
	positions map[string]int64 // the next to be read
}

// begin becomes the next process, with new clients.
func (w *worker) begin() {
	for _, client := range []*kgo.Client{w.producer, w.transactor, w.consumer} {
		giveUp(client)
	}
	w.consumer = nil
	if w.history != nil {
		old := w.history.file
		time.AfterFunc(time.Minute, func() { old.Close() })
	}
	w.process++
	w.counter = 0
	w.history = newHistory(w.settings.History, w.process, object{
		"client": "franz-go", "isolation": "read_committed", "idempotent": true, "transactional": true, "tv": 2,
		"transaction_timeout_ms": delivery.Milliseconds(),
	})
	w.producer = w.client(writing()...)
	w.transactor = w.client(append(writing(),
		kgo.TransactionalID(w.settings.TransactionalID), kgo.TransactionTimeout(delivery))...)
	w.assign()
}

// giveUp closes it where nobody waits for it: it may take long to leave a group that does not answer.
func giveUp(client *kgo.Client) {
	if client != nil {
		go client.CloseAllowingRebalance()
	}
}

func (w *worker) client(options ...kgo.Opt) *kgo.Client {
	client, err := kgo.NewClient(append(options,
		kgo.SeedBrokers(strings.Split(w.settings.Bootstrap, ",")...),
		kgo.RequestTimeoutOverhead(5*time.Second),
		kgo.RetryTimeout(call),
		kgo.MetadataMaxAge(5*time.Second),
		kgo.MetadataMinAge(200*time.Millisecond),
		kgo.RetryBackoffFn(func(int) time.Duration { return 200 * time.Millisecond }),
	)...)
	must(err)
	return client
}

func writing() []kgo.Opt {
	return []kgo.Opt{
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.RecordDeliveryTimeout(delivery),
		kgo.ProducerLinger(2 * time.Millisecond),
	}
}

func reading() []kgo.Opt {
	return []kgo.Opt{
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMaxWait(100 * time.Millisecond),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
	}
}

// --- writing ---------------------------------------------------------------------------------------------

// step is one of an operation: a value that is sent, and what came of it, or what a poll gave.
type step struct {
	key    string
	value  int64
	offset int64
	err    error
	found  map[string][][2]int64
}

func (w *worker) newSend() *step {
	topic := w.active[w.dice.Intn(len(w.active))]
	w.counter++
	key := keyOf(topic, int32(w.dice.Intn(w.topics[topic])))
	return &step{key: key, value: w.process*numbers + w.counter, offset: -1}
}

func before(steps []*step) []any {
	mops := []any{}
	for _, one := range steps {
		if one.key == "" {
			mops = append(mops, []any{"poll"})
		} else {
			mops = append(mops, []any{"send", one.key, one.value})
		}
	}
	return mops
}

func after(steps []*step) []any {
	mops := []any{}
	for _, one := range steps {
		switch {
		case one.key == "":
			mops = append(mops, []any{"poll", one.found})
		case one.offset < 0:
			mops = append(mops, []any{"send", one.key, []any{nil, one.value}})
		default:
			mops = append(mops, []any{"send", one.key, []any{one.offset, one.value}})
		}
	}
	return mops
}

func (w *worker) produce(by *kgo.Client, one *step, done *sync.WaitGroup) {
	topic, partition := placeOf(one.key)
	size := 1 + w.dice.Intn(200)
	if w.dice.Float64() < big {
		size = 10_000
	}
	filler := make([]byte, size)
	for at := range filler {
		filler[at] = byte('a' + w.dice.Intn(8))
	}
	value := encode(one.value, one.key, string(filler))
	number := value[:strings.IndexByte(string(value), ' ')]
	record := &kgo.Record{Topic: topic, Partition: partition, Key: number, Value: value}
	done.Add(1)
	by.Produce(context.Background(), record, func(record *kgo.Record, err error) {
		one.err = err
		if err == nil {
			one.offset = record.Offset
		}
		done.Done()
	})
}

// within waits for this as long as a record is tried for and a call may take.
func within(done *sync.WaitGroup) bool {
	finished := make(chan struct{})
	go func() { done.Wait(); close(finished) }()
	select {
	case <-finished:
		return true
	case <-time.After(delivery + call):
		return false
	}
}

func (w *worker) send() error {
	steps := make([]*step, 1+w.dice.Intn(4))
	for at := range steps {
		steps[at] = w.newSend()
	}
	op := w.history.invoke("send", object{"mops": before(steps)})
	var done sync.WaitGroup
	for _, one := range steps {
		w.produce(w.producer, one, &done)
	}
	if !within(&done) {
		w.history.write("info", "send", op, object{"error": "no answer"})
		return errDoubt
	}
	failed, refused := []string{}, 0
	for _, one := range steps {
		if one.err != nil {
			failed = append(failed, one.err.Error())
			if isRefusal(one.err) {
				refused++
			}
		}
	}
	switch {
	case len(failed) == 0:
		w.history.write("ok", "send", op, object{"mops": after(steps)})
		return nil
	case refused == len(steps):
		w.history.write("fail", "send", op, object{"error": failed[0]})
	default:
		// What is known of the others goes with it.
		w.history.write("info", "send", op, object{"mops": after(steps), "error": failed[0]})
	}
	return errDoubt
}

func isRefusal(err error) bool {
	for _, refusal := range []error{
		kerr.OutOfOrderSequenceNumber, kerr.InvalidProducerEpoch, kerr.ProducerFenced, kerr.InvalidTxnState,
		kerr.UnknownTopicOrPartition, kerr.InvalidTopicException,
	} {
		if errors.Is(err, refusal) {
			return true
		}
	}
	return false
}

// --- transactions ----------------------------------------------------------------------------------------

func (w *worker) txn() error {
	steps := make([]*step, w.dice.Intn(5))
	for at := range steps {
		if w.dice.Intn(3) < 2 {
			steps[at] = w.newSend()
		} else {
			steps[at] = &step{}
		}
	}
	fails := w.dice.Float64() < aborts
	op := w.history.invoke("txn", object{"mops": before(steps), "tv": 2, "isolation": "read_committed"})
	at := w.where()
	if err := w.transactor.BeginTransaction(); err != nil {
		w.history.write("fail", "txn", op, object{"committed": false, "error": err.Error()})
		return errDoubt
	}
	var done sync.WaitGroup
	for _, one := range steps {
		if one.key == "" {
			one.found = w.read()
		} else {
			w.produce(w.transactor, one, &done)
		}
	}
	var failure error
	if !fails {
		if !within(&done) {
			w.history.write("info", "txn", op, object{"error": "no answer"})
			return errDoubt
		}
		for _, one := range steps {
			if one.err != nil {
				failure = one.err
			}
		}
	}
	commit := kgo.TransactionEndTry(!fails && failure == nil)
	if err := w.end(commit); err != nil {
		// NB: what it was to be is not what it is: a commit in doubt may have been one.
		w.history.write("info", "txn", op, object{"error": err.Error()})
		return errDoubt
	}
	switch {
	case failure != nil:
		w.history.write("fail", "txn", op, object{"committed": false, "error": failure.Error()})
	case fails:
		w.history.write("fail", "txn", op, object{"mops": after(steps), "committed": false, "aborted": true})
	default:
		w.history.write("ok", "txn", op, object{"mops": after(steps), "committed": true})
		return nil
	}
	w.rewind(at)
	return nil
}

func (w *worker) end(commit kgo.TransactionEndTry) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*call)
	defer cancel()
	if !commit {
		if err := w.transactor.AbortBufferedRecords(ctx); err != nil {
			return err
		}
	}
	return w.transactor.EndTransaction(ctx, commit)
}

// --- questions -------------------------------------------------------------------------------------------

func (w *worker) listOffsets() {
	names := sorted(w.topics)
	topic := names[w.dice.Intn(len(names))]
	partition := int32(w.dice.Intn(w.topics[topic]))
	op := w.history.invoke("list_offsets", object{"key": keyOf(topic, partition), "isolation": "read_uncommitted"})
	ask := kmsg.NewPtrListOffsetsRequest()
	ask.ReplicaID = -1
	ofTopic, ofPartition := kmsg.NewListOffsetsRequestTopic(), kmsg.NewListOffsetsRequestTopicPartition()
	ofPartition.Partition, ofPartition.Timestamp = partition, -1
	ofTopic.Topic = topic
	ofTopic.Partitions = append(ofTopic.Partitions, ofPartition)
	ask.Topics = append(ask.Topics, ofTopic)
	ctx, cancel := context.WithTimeout(context.Background(), call)
	defer cancel()
	answer, err := ask.RequestWith(ctx, w.producer)
	if err == nil && (len(answer.Topics) != 1 || len(answer.Topics[0].Partitions) != 1) {
		err = errors.New("no answer for the partition")
	}
	if err == nil {
		err = kerr.ErrorForCode(answer.Topics[0].Partitions[0].ErrorCode)
	}
	if err != nil {
		w.history.write("fail", "list_offsets", op, object{"error": err.Error()})
		return
	}
	w.history.write("ok", "list_offsets", op, object{"end": answer.Topics[0].Partitions[0].Offset})
}

func (w *worker) commit() error {
	at := w.where()
	if len(at) == 0 {
		return nil
	}
	keys := sorted(at)
	key := keys[w.dice.Intn(len(keys))]
	about := w.membership()
	about["key"], about["offset"] = key, at[key]
	op := w.history.invoke("commit", about)
	topic, partition := placeOf(key)
	ask := kmsg.NewPtrOffsetCommitRequest()
	ask.Group, ask.Generation = w.group, -1
	if w.isSubscribed() {
		ask.Generation, ask.MemberID = int32(about["generation"].(int64)), about["member"].(string)
	}
	ofTopic, ofPartition := kmsg.NewOffsetCommitRequestTopic(), kmsg.NewOffsetCommitRequestTopicPartition()
	ofPartition.Partition, ofPartition.Offset = partition, at[key]
	ofTopic.Topic = topic
	ofTopic.Partitions = append(ofTopic.Partitions, ofPartition)
	ask.Topics = append(ask.Topics, ofTopic)
	ctx, cancel := context.WithTimeout(context.Background(), call)
	defer cancel()
	answer, err := ask.RequestWith(ctx, w.consumer)
	if err == nil {
		err = kerr.ErrorForCode(answer.Topics[0].Partitions[0].ErrorCode)
	}
	if err == nil {
		w.history.write("ok", "commit", op, nil)
		return nil
	}
	for _, refusal := range []error{
		kerr.IllegalGeneration, kerr.UnknownMemberID, kerr.RebalanceInProgress, kerr.FencedMemberEpoch, kerr.StaleMemberEpoch,
	} {
		if errors.Is(err, refusal) {
			w.history.write("fail", "commit", op, object{"error": err.Error()})
			return nil
		}
	}
	w.history.write("info", "commit", op, object{"error": err.Error()})
	return errDoubt
}

func (w *worker) committed() {
	w.mutex.Lock()
	keys := sorted(w.owned)
	w.mutex.Unlock()
	if len(keys) == 0 {
		return
	}
	key := keys[w.dice.Intn(len(keys))]
	about := w.membership()
	about["key"] = key
	op := w.history.invoke("committed", about)
	topic, partition := placeOf(key)
	ask := kmsg.NewPtrOffsetFetchRequest()
	ask.Group, ask.RequireStable = w.group, true
	ofTopic := kmsg.NewOffsetFetchRequestTopic()
	ofTopic.Topic, ofTopic.Partitions = topic, []int32{partition}
	ask.Topics = append(ask.Topics, ofTopic)
	ctx, cancel := context.WithTimeout(context.Background(), call)
	defer cancel()
	answer, err := ask.RequestWith(ctx, w.producer)
	if err == nil {
		err = kerr.ErrorForCode(answer.ErrorCode)
	}
	if err == nil && (len(answer.Topics) != 1 || len(answer.Topics[0].Partitions) != 1) {
		err = errors.New("no answer for the partition")
	}
	if err == nil {
		err = kerr.ErrorForCode(answer.Topics[0].Partitions[0].ErrorCode)
	}
	if err != nil {
		w.history.write("fail", "committed", op, object{"error": err.Error()})
		return
	}
	w.history.write("ok", "committed", op, object{"offset": answer.Topics[0].Partitions[0].Offset})
}
