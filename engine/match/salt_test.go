package match

import "testing"

// Five zeros, which every program is full of, must not pass the first filter by
// chance; and whatever the salt, what is indexed passes.
func TestCommonGramsDoNotPass(t *testing.T) {
	passes := func(first []uint32, g uint64, salt uint32) bool {
		h := firstHash(g, salt)
		b := firstBits(h)
		return first[h&uint32(len(first)-1)]&b == b
	}
	byChance, other := 0, 0
	for round := range 40 {
		// Enough grams for every tenth gram to pass by chance or so.
		grams := make([]uint64, 6<<10)
		x := uint64(round + 1)
		for i := range grams {
			x = x*6364136223846793005 + 1442695040888963407
			grams[i] = fold8(x>>20) & mask5
		}
		first, salt := salted(grams, commonGrams(), firstHash)
		for _, g := range grams {
			if !passes(first, g, salt) {
				t.Fatalf("round %d: %#x does not pass", round, g)
			}
		}
		if passes(first, 0, salt) {
			byChance++
		}
		if salt != 0 {
			other++
		}
	}
	if byChance > 1 {
		t.Errorf("zeros pass in %d of 40 tables", byChance)
	}
	t.Logf("%d of 40 tables have another salt than 0", other)
	// Where they are looked for, they pass.
	first, salt := salted([]uint64{0, 1}, commonGrams(), firstHash)
	if !passes(first, 0, salt) || !passes(first, 1, salt) {
		t.Error("an indexed gram does not pass")
	}
}
