// A worker of the black box with franz-go. blackbox_worker.py is its like and says what it is told and what
// it writes:
//
//	franz SETTINGS
//
// Its transactions commit no offsets: that would take a client of its own, which reads for the group and writes.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"math/rand"
	"os"
	"sort"
	"time"
)

const (
	call     = 15 * time.Second  // that a call may take
	delivery = 12 * time.Second  // that a record is tried for
	final    = 200 * time.Second // that the last reading may take
	aborts   = 0.1               // of transactions
	big      = 0.03              // of records are too big for the log and go to the store
)

// errDoubt says that nobody knows whether the operation has happened.
var errDoubt = errors.New("in doubt")

type settings struct {
	Bootstrap       string         `json:"bootstrap"`
	History         string         `json:"history"`
	Process         int64          `json:"process"`
	Seed            int64          `json:"seed"`
	Group           string         `json:"group"`
	TransactionalID string         `json:"transactional_id"`
	Pace            float64        `json:"pace"`
	Mix             map[string]int `json:"mix"`
}

type order struct {
	Topics map[string]int   `json:"topics"`
	Active []string         `json:"active"`
	Final  map[string]int64 `json:"final"`
}

func main() {
	worker := &worker{ends: map[string]int64{}}
	must(json.Unmarshal([]byte(os.Args[1]), &worker.settings))
	worker.dice = rand.New(rand.NewSource(worker.settings.Seed))
	worker.process = worker.settings.Process - 1
	orders := make(chan order, 100)
	go listen(orders)
	worker.hear(<-orders)
	worker.begin()
	for worker.last == nil {
		select {
		case one := <-orders:
			worker.hear(one)
			continue
		default:
		}
		if err := worker.step(worker.choose()); errors.Is(err, errDoubt) {
			worker.begin()
		}
		time.Sleep(time.Duration(worker.dice.Float64() * 2 * worker.settings.Pace * float64(time.Second)))
	}
	worker.finish()
	os.Exit(0)
}

func listen(orders chan<- order) {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var one order
		must(json.Unmarshal(lines.Bytes(), &one))
		orders <- one
	}
	os.Exit(0) // nobody is there any more
}

func (w *worker) hear(one order) {
	if one.Topics != nil {
		w.topics = one.Topics
	}
	if one.Active != nil {
		w.active = one.Active
	}
	if one.Final != nil {
		w.last = one.Final
	}
}

func (w *worker) choose() string {
	if w.dice.Intn(64) == 0 {
		return []string{"assign", "subscribe"}[w.dice.Intn(2)]
	}
	sum := 0
	for _, weight := range w.settings.Mix {
		sum += weight
	}
	drawn := w.dice.Intn(sum)
	for _, name := range sorted(w.settings.Mix) {
		if drawn -= w.settings.Mix[name]; drawn < 0 {
			return name
		}
	}
	panic("no such weight")
}

func (w *worker) step(name string) error {
	switch name {
	case "send":
		return w.send()
	case "poll":
		w.poll()
	case "txn":
		return w.txn()
	case "assign":
		w.assign()
	case "subscribe":
		w.subscribe()
	case "seek":
		w.seek()
	case "list_offsets":
		w.listOffsets()
	case "commit":
		return w.commit()
	case "committed":
		w.committed()
	default:
		panic(name)
	}
	return nil
}

// finish reads everything from the beginning with a new consumer.
func (w *worker) finish() {
	w.begin()
	w.history.fact("final", object{"note": w.last})
	at := map[string]int64{}
	for _, key := range w.allKeys() {
		at[key] = 0
	}
	w.assignAt(at)
	deadline := time.Now().Add(final)
	for {
		missing := map[string]int64{}
		for key, end := range w.last {
			if w.positions[key] <= end {
				missing[key] = end
			}
		}
		if len(missing) == 0 {
			break
		}
		if time.Now().After(deadline) {
			w.history.note(object{"missing": missing})
			return
		}
		w.poll()
	}
	w.poll()
	w.history.note(object{"complete": true})
}

func sorted[V any](of map[string]V) []string {
	names := make([]string, 0, len(of))
	for name := range of {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}
