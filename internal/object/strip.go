package object

import (
	"bytes"
	"fmt"
)

// maxDepth bounds the nesting that rules can reach into; what no rule names is skipped without recursion.
const maxDepth = 16

// stripper copies JSON without the members that rules drop. It trusts the API server to write well-formed JSON and never
// reads past its end.
type stripper struct {
	raw, out []byte
	// copied is the position in raw up to which out has been written or left out.
	copied int
	taken  [takes]string
	last   lastChange
	// Where the value of the resource version stands in out.
	versionStart, versionEnd int
}

// flush copies raw up to end.
func (s *stripper) flush(end int) {
	s.out = append(s.out, s.raw[s.copied:end]...)
	s.copied = end
}

// value walks the value at i under the rules and returns where it ends.
func (s *stripper) value(i int, rules []rule, depth int) (int, error) {
	if i >= len(s.raw) {
		return 0, errTruncated
	}
	if len(rules) == 0 || depth > maxDepth {
		return Skip(s.raw, i)
	}
	switch s.raw[i] {
	case '{':
		return s.object(i, rules, depth)
	case '[':
		return Elements(s.raw, i, func(start int) (int, error) { return s.value(start, rules, depth+1) })
	}
	return Skip(s.raw, i)
}

func (s *stripper) object(i int, rules []rule, depth int) (int, error) {
	kept := false // some member before the current one
	i = skipSpace(s.raw, i+1)
	if i < len(s.raw) && s.raw[i] == '}' {
		return i + 1, nil
	}
	// comma is where a dropped member starts: its comma, or its key when nothing was kept before it.
	for comma := i; ; {
		keyEnd, err := skipString(s.raw, i)
		if err != nil {
			return 0, err
		}
		name := s.raw[i+1 : keyEnd-1]
		at := skipSpace(s.raw, keyEnd)
		if at >= len(s.raw) || s.raw[at] != ':' {
			return 0, fmt.Errorf("no colon at byte %d", at)
		}
		at = skipSpace(s.raw, at+1)
		end, dropped, err := s.member(name, at, comma, rules, depth)
		if err != nil {
			return 0, err
		}
		next := skipSpace(s.raw, end)
		if next >= len(s.raw) {
			return 0, errTruncated
		}
		last := s.raw[next] == '}'
		if !last && s.raw[next] != ',' {
			return 0, fmt.Errorf("no comma at byte %d", next)
		}
		if dropped {
			s.copied = end
			if !kept && !last {
				s.copied = next + 1
			}
		}
		kept = kept || !dropped
		if last {
			return next + 1, nil
		}
		comma = next
		i = skipSpace(s.raw, next+1)
		if !kept {
			comma = i
		}
	}
}

// member walks one member of an object, whose value is at at, and says whether it was dropped. Then everything before
// its comma has been copied.
func (s *stripper) member(name []byte, at, comma int, rules []rule, depth int) (end int, dropped bool, err error) {
	for r := range rules {
		rule := &rules[r]
		if rule.name != string(name) {
			continue
		}
		switch {
		case rule.drop:
			if rule.managers && at < len(s.raw) && s.raw[at] == '[' {
				end, err = s.last.read(s.raw, at)
			} else {
				end, err = Skip(s.raw, at)
			}
			if err == nil {
				s.flush(comma)
			}
			return end, true, err
		case rule.take != takeNothing:
			end, err = skipString(s.raw, at)
			if err != nil {
				return 0, false, err
			}
			s.taken[rule.take] = string(s.raw[at+1 : end-1])
			if rule.take == takeVersion {
				s.flush(at)
				s.versionStart = len(s.out)
				s.flush(end)
				s.versionEnd = len(s.out)
			}
			return end, false, nil
		}
		end, err = s.value(at, rule.inner, depth+1)
		return end, false, err
	}
	end, err = Skip(s.raw, at)
	return end, false, err
}

// Elements calls each with the start of every element of the array at i; each returns where the element ends. It returns
// where the array ends.
func Elements(raw []byte, i int, each func(start int) (end int, err error)) (int, error) {
	i = skipSpace(raw, i+1)
	if i < len(raw) && raw[i] == ']' {
		return i + 1, nil
	}
	for {
		end, err := each(i)
		if err != nil {
			return 0, err
		}
		i = skipSpace(raw, end)
		if i >= len(raw) {
			return 0, errTruncated
		}
		if raw[i] == ']' {
			return i + 1, nil
		}
		if raw[i] != ',' {
			return 0, fmt.Errorf("no comma at byte %d", i)
		}
		i = skipSpace(raw, i+1)
	}
}

// Members calls each with the name of every member of the object at i and where its value starts; each returns where the
// value ends. It returns where the object ends.
func Members(raw []byte, i int, each func(name []byte, start int) (end int, err error)) (int, error) {
	i = skipSpace(raw, i)
	if i >= len(raw) || raw[i] != '{' {
		return 0, fmt.Errorf("no object at byte %d", i)
	}
	i = skipSpace(raw, i+1)
	if i < len(raw) && raw[i] == '}' {
		return i + 1, nil
	}
	for {
		keyEnd, err := skipString(raw, i)
		if err != nil {
			return 0, err
		}
		name := raw[i+1 : keyEnd-1]
		i = skipSpace(raw, keyEnd)
		if i >= len(raw) || raw[i] != ':' {
			return 0, fmt.Errorf("no colon at byte %d", i)
		}
		end, err := each(name, skipSpace(raw, i+1))
		if err != nil {
			return 0, err
		}
		i = skipSpace(raw, end)
		if i >= len(raw) {
			return 0, errTruncated
		}
		if raw[i] == '}' {
			return i + 1, nil
		}
		if raw[i] != ',' {
			return 0, fmt.Errorf("no comma at byte %d", i)
		}
		i = skipSpace(raw, i+1)
	}
}

// Skip returns where the value at i ends.
func Skip(raw []byte, i int) (int, error) {
	if i >= len(raw) {
		return 0, errTruncated
	}
	switch raw[i] {
	case '"':
		return skipString(raw, i)
	case '{', '[':
		depth := 0
		for i < len(raw) {
			switch raw[i] {
			case '"':
				end, err := skipString(raw, i)
				if err != nil {
					return 0, err
				}
				i = end
				continue
			case '{', '[':
				depth++
			case '}', ']':
				depth--
				if depth == 0 {
					return i + 1, nil
				}
			}
			i++
		}
		return 0, errTruncated
	}
	for i < len(raw) {
		switch raw[i] {
		case ',', '}', ']', ' ', '\n', '\r', '\t':
			return i, nil
		}
		i++
	}
	return i, nil
}

// skipString returns where the string at i ends, behind its closing quote.
func skipString(raw []byte, i int) (int, error) {
	if i >= len(raw) {
		return 0, errTruncated
	}
	if raw[i] != '"' {
		return 0, fmt.Errorf("no string at byte %d", i)
	}
	for i++; ; i++ {
		next := bytes.IndexByte(raw[i:], '"')
		if next < 0 {
			return 0, errTruncated
		}
		i += next
		escapes := 0
		for raw[i-1-escapes] == '\\' {
			escapes++
		}
		if escapes%2 == 0 {
			return i + 1, nil
		}
	}
}

func skipSpace(raw []byte, i int) int {
	for i < len(raw) && (raw[i] == ' ' || raw[i] == '\n' || raw[i] == '\r' || raw[i] == '\t') {
		i++
	}
	return i
}
