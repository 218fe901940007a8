//go:build ignore

// Makes rarity.bin from the files under the folders given:
//
//	go run rarity_gen.go /usr/bin /usr/lib /usr/share
package main

import (
	"encoding/binary"
	"io"
	"io/fs"
	"log"
	"math"
	"os"
	"path/filepath"
)

func main() {
	pairs := make([]uint64, 1<<16)
	grams := make([]uint64, 1<<16)
	first, second := make([]uint64, 1<<17), make([]uint64, 1<<17)
	var total uint64
	for _, root := range os.Args[1:] {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return nil
			}
			f, err := os.Open(path)
			if err != nil {
				return nil
			}
			defer f.Close()
			// At most a megabyte of each, so that no single file dominates.
			data, err := io.ReadAll(io.LimitReader(f, 1<<20))
			if err != nil {
				return nil
			}
			for i := 0; i+4 <= len(data); i++ {
				g := binary.LittleEndian.Uint32(data[i:])
				g |= g >> 1 & 0x20202020
				pairs[uint16(g)]++
				grams[uint64(g)*0x9E3779B97F4A7C15>>48]++
				g &= 1<<24 - 1
				first[g*0x9E3779B1>>15]++
				second[g*0x85EBCA77>>15]++
				total++
			}
			return nil
		})
		if err != nil {
			log.Fatal(err)
		}
	}
	var out []byte
	for _, table := range [][]uint64{pairs, grams, first, second} {
		for _, n := range table {
			v := 255.0
			if n > 0 {
				v = min(255, -4*math.Log2(float64(n)/float64(total)))
			}
			out = append(out, byte(v))
		}
	}
	if err := os.WriteFile("rarity.bin", out, 0o644); err != nil {
		log.Fatal(err)
	}
	log.Printf("%d grams", total)
}
