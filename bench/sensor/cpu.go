package main

import (
	"time"

	"github.com/bulwarkhq/bulwark/bench/measure"
)

// meter notes the CPU time of each second.
type meter struct {
	done chan struct{}
	out  chan []time.Duration
}

func watchCPU(pids func() []int) *meter {
	m := &meter{done: make(chan struct{}), out: make(chan []time.Duration, 1)}
	go func() {
		var seconds []time.Duration
		last, at := measure.CPU(pids()), time.Now()
		t := time.NewTicker(time.Second)
		defer t.Stop()
		for {
			select {
			case <-m.done:
				m.out <- seconds
				return
			case now := <-t.C:
				cpu := measure.CPU(pids())
				// A late tick is a longer second.
				seconds = append(seconds, time.Duration(float64(cpu-last)/now.Sub(at).Seconds()))
				last, at = cpu, now
			}
		}
	}()
	return m
}

func (m *meter) stop() []time.Duration {
	close(m.done)
	return <-m.out
}
