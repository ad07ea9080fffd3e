package config

import (
	"cmp"
	"slices"
	"strings"
)

// A Problem is one mistake in the configuration: where, what, and the way out.
type Problem struct {
	Key  string // path of the setting, or the file's name
	What string
	Fix  string
}

func (p Problem) String() string { return p.Key + ": " + p.What + " - " + p.Fix }

// Problems is every mistake found, as one error, a line each, sorted by key.
type Problems []Problem

func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

func (ps Problems) sort() {
	slices.SortStableFunc(ps, func(a, b Problem) int { return cmp.Compare(a.Key, b.Key) })
}

// suggest returns the known key that the operator most likely meant, or "".
func suggest(key string, known []string) string {
	best, bestDistance := "", len(key)/3+2
	for _, k := range known {
		d := min(distance(key, k), distance(last(key), last(k))+1)
		if d < bestDistance {
			best, bestDistance = k, d
		}
	}
	return best
}

func last(key string) string { return key[strings.LastIndexByte(key, '.')+1:] }

// distance is the number of insertions, deletions, substitutions and swaps of neighbours between two words.
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			d := min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d = min(d, rows[i-2][j-2]+1)
			}
			rows[i][j] = d
		}
	}
	return rows[len(a)][len(b)]
}
