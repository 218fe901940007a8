package detect

import "regexp/syntax"

// requiredLiteral finds the longest text that every match of the regular
// expression contains, in lower case; empty when there is none.
func requiredLiteral(re string) string {
	s, err := syntax.Parse(re, syntax.Perl)
	if err != nil {
		return ""
	}
	return longestLiteral(s.Simplify(), 0)
}

func longestLiteral(s *syntax.Regexp, depth int) string {
	if depth > 100 {
		return ""
	}
	switch s.Op {
	case syntax.OpLiteral:
		text := string(s.Rune)
		if s.Flags&syntax.FoldCase != 0 {
			for _, r := range s.Rune {
				// Folding of other letters changes more than their case byte;
				// k and s fold to non-ASCII letters.
				if r >= 0x80 || r|0x20 == 'k' || r|0x20 == 's' {
					return ""
				}
			}
		}
		return lower(text)
	case syntax.OpCapture, syntax.OpPlus:
		return longestLiteral(s.Sub[0], depth+1)
	case syntax.OpRepeat:
		if s.Min > 0 {
			return longestLiteral(s.Sub[0], depth+1)
		}
	case syntax.OpConcat:
		best := ""
		for _, sub := range s.Sub {
			if l := longestLiteral(sub, depth+1); len(l) > len(best) {
				best = l
			}
		}
		return best
	}
	return ""
}
