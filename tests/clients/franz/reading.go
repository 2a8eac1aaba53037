package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// read is one poll: {key: [[offset, value]]}.
func (w *worker) read() map[string][][2]int64 {
	found := map[string][][2]int64{}
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	fetches := w.consumer.PollRecords(ctx, 100)
	w.mutex.Lock()
	for _, failed := range fetches.Errors() {
		if !errors.Is(failed.Err, context.DeadlineExceeded) {
			w.history.note(object{"poll": failed.Err.Error(), "key": keyOf(failed.Topic, failed.Partition)})
		}
	}
	for _, record := range fetches.Records() {
		key := keyOf(record.Topic, record.Partition)
		w.positions[key] = record.Offset + 1
		w.isRead[key] = true
		w.ends[key] = max(w.ends[key], record.Offset+1)
		if value, fits := decode(record.Value, key); fits {
			found[key] = append(found[key], [2]int64{record.Offset, value})
		} else {
			shown := fmt.Sprintf("%.200q", record.Value)
			w.history.fact("misplaced", object{"key": key, "offset": record.Offset, "note": shown})
		}
	}
	w.mutex.Unlock()
	w.consumer.AllowRebalance()
	return found
}

func (w *worker) poll() {
	op := w.history.invoke("poll", object{"mops": []any{[]any{"poll"}}, "isolation": "read_committed"})
	found := w.read()
	w.history.write("ok", "poll", op, object{"mops": []any{[]any{"poll", found}}})
}

func (w *worker) where() map[string]int64 {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	at := map[string]int64{}
	for key, offset := range w.positions {
		at[key] = offset
	}
	return at
}

func (w *worker) allKeys() []string {
	var keys []string
	for _, topic := range sorted(w.topics) {
		for partition := range w.topics[topic] {
			keys = append(keys, keyOf(topic, int32(partition)))
		}
	}
	return keys
}

// assign takes some keys, from where this program was in them or from the beginning. A third of the time only
// such that it has read nothing of, and some that are written to.
func (w *worker) assign() {
	keys := w.allKeys()
	w.dice.Shuffle(len(keys), func(a, b int) { keys[a], keys[b] = keys[b], keys[a] })
	chosen := map[string]bool{}
	if w.dice.Intn(3) == 0 {
		unseen, recent := 3, 2
		for _, key := range keys {
			topic, _ := placeOf(key)
			if _, seen := w.ends[key]; !seen && unseen > 0 {
				unseen--
				chosen[key] = true
			} else if recent > 0 && contains(w.active, topic) {
				recent--
				chosen[key] = true
			}
		}
	} else {
		for _, key := range keys[:min(len(keys), 1+w.dice.Intn(4))] {
			chosen[key] = true
		}
	}
	known := w.dice.Intn(3) > 0
	at := map[string]int64{}
	for key := range chosen {
		if known {
			at[key] = w.ends[key]
		} else {
			at[key] = 0
		}
	}
	w.assignAt(at)
}

// assignAt reads these from now on. A consumer that reads without a group is made with what it reads.
func (w *worker) assignAt(at map[string]int64) {
	giveUp(w.consumer)
	w.group, w.protocol = fmt.Sprintf("%s-alone-%d", w.settings.Group, w.process), ""
	op := w.history.invoke("assign", object{"keys": sorted(at), "offsets": at})
	places := map[string]map[int32]kgo.Offset{}
	w.mutex.Lock()
	w.owned, w.isRead, w.positions = map[string]bool{}, map[string]bool{}, map[string]int64{}
	for key, offset := range at {
		w.owned[key], w.positions[key] = true, offset
		topic, partition := placeOf(key)
		if places[topic] == nil {
			places[topic] = map[int32]kgo.Offset{}
		}
		places[topic][partition] = kgo.NewOffset().At(offset)
	}
	w.mutex.Unlock()
	w.consumer = w.client(append(reading(), kgo.ConsumePartitions(places))...)
	w.history.write("ok", "assign", op, nil)
}

func (w *worker) subscribe() {
	giveUp(w.consumer)
	options := reading()
	w.protocol = []string{"classic", "consumer"}[w.dice.Intn(2)]
	if w.protocol == "consumer" {
		options = append(options, kgo.ServerSideBalancer(), kgo.Balancers(kgo.RangeBalancer()))
	} else {
		options = append(options, kgo.SessionTimeout(6*time.Second), kgo.HeartbeatInterval(time.Second),
			kgo.Balancers(kgo.RangeBalancer()))
	}
	w.group = fmt.Sprintf("%s-%s", w.settings.Group, w.protocol)
	w.mutex.Lock()
	w.owned, w.isRead, w.positions = map[string]bool{}, map[string]bool{}, map[string]int64{}
	w.mutex.Unlock()
	op := w.history.invoke("subscribe", object{"topics": w.active, "group": w.group})
	process := w.history
	var mine *kgo.Client
	ready := make(chan struct{})
	moved := func(gained bool) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(_ context.Context, client *kgo.Client, places map[string][]int32) {
			<-ready
			if w.consumer == mine && w.history == process {
				w.moved(client, gained, places)
			}
		}
	}
	mine = w.client(append(options,
		kgo.ConsumerGroup(w.group), kgo.ConsumeTopics(w.active...), kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(),
		kgo.OnPartitionsAssigned(moved(true)), kgo.OnPartitionsRevoked(moved(false)), kgo.OnPartitionsLost(moved(false)),
	)...)
	w.consumer = mine
	w.history.write("ok", "subscribe", op, nil)
	close(ready)
}

func (w *worker) moved(client *kgo.Client, gained bool, places map[string][]int32) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	keys := map[string]bool{}
	for topic, partitions := range places {
		for _, partition := range partitions {
			key := keyOf(topic, partition)
			keys[key] = true
			delete(w.positions, key)
			delete(w.isRead, key)
			if gained {
				w.owned[key] = true
			} else {
				delete(w.owned, key)
			}
		}
	}
	if len(keys) == 0 {
		return
	}
	w.history.fact("rebalance", object{"keys": sorted(keys)})
	if gained {
		member, generation := client.GroupMetadata()
		w.history.fact("assigned", object{"keys": sorted(w.owned), "group": w.group, "generation": generation,
			"member": member, "protocol": w.protocol})
	}
}

func (w *worker) membership() object {
	if !w.isSubscribed() {
		return object{"group": w.group}
	}
	member, generation := w.consumer.GroupMetadata()
	return object{"group": w.group, "generation": int64(generation), "member": member, "protocol": w.protocol}
}

func (w *worker) isSubscribed() bool { return !strings.Contains(w.group, "-alone-") }

// seek goes back or forth in one key.
func (w *worker) seek() {
	keys := sorted(w.where())
	if len(keys) == 0 {
		return
	}
	key := keys[w.dice.Intn(len(keys))]
	w.seekTo(key, w.dice.Int63n(w.ends[key]+1))
}

func (w *worker) seekTo(key string, offset int64) {
	op := w.history.invoke("seek", object{"key": key, "offset": offset})
	topic, partition := placeOf(key)
	w.mutex.Lock()
	// What it has not yet read from, SetOffsets leaves as it is.
	can := w.owned[key] && w.isRead[key]
	w.mutex.Unlock()
	if !can {
		w.history.write("fail", "seek", op, object{"error": "it is not reading it"})
		return
	}
	w.consumer.SetOffsets(map[string]map[int32]kgo.EpochOffset{topic: {partition: {Epoch: -1, Offset: offset}}})
	w.mutex.Lock()
	if w.owned[key] {
		w.positions[key] = offset
	}
	w.mutex.Unlock()
	w.history.write("ok", "seek", op, nil)
}

// rewind goes back to where it was: what an aborted transaction has read is to be read again.
func (w *worker) rewind(before map[string]int64) {
	for key, now := range w.where() {
		if then, known := before[key]; !known || then != now {
			w.seekTo(key, then)
		}
	}
}

func contains(names []string, name string) bool {
	for _, one := range names {
		if one == name {
			return true
		}
	}
	return false
}
