package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"unsafe"
)

const numbers = 1_000_000_000 // values of one process

type object map[string]any

// history is what one process does. Each line is there as soon as it is written, whatever comes next.
type history struct {
	mutex   sync.Mutex
	process int64
	ops     int64
	file    *os.File
}

func newHistory(directory string, process int64, header object) *history {
	name := fmt.Sprintf("%s/process-%d.jsonl", directory, process)
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	must(err)
	made := &history{process: process, file: file}
	made.fact("header", header)
	return made
}

func (h *history) invoke(f string, about object) int64 {
	h.mutex.Lock()
	h.ops++
	op := h.ops
	h.mutex.Unlock()
	h.write("invoke", f, op, about)
	return op
}

func (h *history) fact(f string, about object) { h.write("ok", f, 0, about) }

func (h *history) note(about object) { h.fact("note", object{"note": about}) }

func (h *history) write(stage, f string, op int64, about object) {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	line := object{"time_us": monotonic(), "process": h.process, "stage": stage, "f": f}
	if op > 0 {
		line["op"] = op
	}
	for name, value := range about {
		line[name] = value
	}
	text, err := json.Marshal(line)
	must(err)
	_, err = h.file.Write(append(text, '\n'))
	must(err)
}

// monotonic is the machine's clock that all workers write: Go's own begins with the process.
func monotonic() int64 {
	const clockMonotonic = 1
	var now syscall.Timespec
	_, _, err := syscall.Syscall(syscall.SYS_CLOCK_GETTIME, clockMonotonic, uintptr(unsafe.Pointer(&now)), 0)
	if err != 0 {
		panic(err)
	}
	return now.Nano() / 1000
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// encode makes a value as it travels: the number, where it was sent, by whom, some more bytes, a digest of all.
func encode(value int64, key, filler string) []byte {
	text := fmt.Sprintf("%d %s %d %s", value, key, value/numbers, filler)
	return []byte(text + " " + digest(text))
}

// decode returns the number, unless these bytes do not belong to the key.
func decode(data []byte, key string) (int64, bool) {
	text := string(data)
	end := strings.LastIndexByte(text, ' ')
	words := strings.Split(text, " ")
	if len(words) != 5 || words[4] != digest(text[:end]) || words[1] != key {
		return 0, false
	}
	value, err := strconv.ParseInt(words[0], 10, 64)
	return value, err == nil && words[2] == strconv.FormatInt(value/numbers, 10)
}

func digest(text string) string {
	whole := sha256.Sum256([]byte(text))
	return hex.EncodeToString(whole[:8])
}

func keyOf(topic string, partition int32) string { return fmt.Sprintf("%s/%d", topic, partition) }

func placeOf(key string) (string, int32) {
	slash := strings.LastIndexByte(key, '/')
	partition, err := strconv.ParseInt(key[slash+1:], 10, 32)
	must(err)
	return key[:slash], int32(partition)
}
