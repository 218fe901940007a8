package quarantine

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// original is what an item was made of.
type original struct {
	device, inode uint64
	sha256        string
}

func (i Item) original() original { return original{i.Device, i.Inode, i.SHA256} }

// keep puts an item into the lists. mu is held, or the store not shared yet.
func (s *Store) keep(item Item) {
	s.items[item.ID] = item
	if item.State != StateQuarantined {
		return
	}
	ids := s.quarantined[item.original()]
	at, _ := slices.BinarySearchFunc(ids, item.Time, func(id string, t time.Time) int {
		if s.items[id].Time.After(t) {
			return 1
		}
		return -1 // it goes behind those of the same time
	})
	s.quarantined[item.original()] = slices.Insert(ids, at, item.ID)
}

// Of returns the newest item of a file that was taken away; somebody may have it
// open still. Who has no hash of the file (it is too large) finds the item that
// was made of it when it had the size and the time of change it has now.
func (s *Store) Of(st *unix.Stat_t, sha256 string) (Item, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sha256 != "" {
		ids := s.quarantined[original{uint64(st.Dev), st.Ino, sha256}]
		if len(ids) == 0 {
			return Item{}, false
		}
		return s.items[ids[len(ids)-1]], true
	}
	changed := time.Unix(st.Mtim.Unix())
	var newest Item
	for _, i := range s.items { // rare, and bounded by MaxItems
		same := i.Device == uint64(st.Dev) && i.Inode == st.Ino && i.Size == st.Size && i.ModTime.Equal(changed)
		if same && i.State == StateQuarantined && i.Time.After(newest.Time) {
			newest = i
		}
	}
	return newest, newest.ID != ""
}
