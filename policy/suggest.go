package policy

import "strings"

// suggestKey names the key that was probably meant by an unknown one: a
// similar name in the same section, else the same name in another.
func suggestKey(prefix, name string) string {
	var siblings []string
	seen := map[string]bool{}
	for _, k := range keys {
		rest, ok := strings.CutPrefix(k.Name, prefix)
		if !ok {
			continue
		}
		rest, _, _ = strings.Cut(rest, ".")
		if !seen[rest] {
			seen[rest] = true
			siblings = append(siblings, rest)
		}
	}
	if s := nearest(name, siblings); s != "" {
		return s
	}
	var members []string
	full := map[string]string{}
	for _, k := range keys {
		if _, dup := full[k.Member()]; !dup {
			full[k.Member()] = k.Name
			members = append(members, k.Member())
		}
	}
	if s := nearest(name, members); s != "" {
		return full[s]
	}
	return ""
}

// nearest returns the word most like s, or "" when none is like it.
func nearest(s string, words []string) string {
	if len(s) > 100 {
		return ""
	}
	best, bestDistance := "", max(1, len(s)/3)+1
	for _, w := range words {
		if d := distance(strings.ToLower(s), strings.ToLower(w)); d < bestDistance {
			best, bestDistance = w, d
		}
	}
	return best
}

// distance is the number of insertions, deletions, replacements and swaps of
// neighbours between two words (optimal string alignment).
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, last, row = last, row, before
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return row[len(b)]
}
