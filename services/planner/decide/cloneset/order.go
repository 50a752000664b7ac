package cloneset

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"shiplog.dev/api/kruise/apps/v1beta1"
	"shiplog.dev/internal/world"
)

// deletionCost is the Pod annotation by which people say which Pods are cheap to lose (R35.5).
const deletionCost = "controller.kubernetes.io/pod-deletion-cost"

// cheapest returns the n Pods, new or old ones, that are the least loss, in order (R35). All of them when there are fewer.
func (r *round) cheapest(n int, countsNew bool) []*pod {
	var candidates []*pod
	for i := range r.pods {
		if r.pods[i].countsNew == countsNew {
			candidates = append(candidates, &r.pods[i])
		}
	}
	ranks := r.ranks(candidates)
	slices.SortStableFunc(candidates, func(a, b *pod) int {
		return cmp.Or(byState(a, b), cmp.Compare(costOf(a.Pod), costOf(b.Pod)), cmp.Compare(ranks[b], ranks[a]), byAge(a, b))
	})
	return candidates[:min(max(n, 0), len(candidates))]
}

// byState is R35 steps 1 to 4.
func byState(a, b *pod) int {
	return cmp.Or(
		first(a.Node == "", b.Node == ""),
		cmp.Compare(phaseRank(a.Pod), phaseRank(b.Pod)),
		first(!a.availableNow, !b.availableNow),
		first(!a.ready, !b.ready),
	)
}

// byAge is R35 steps 7 to 9, and then the name, so that the order is one.
func byAge(a, b *pod) int {
	return cmp.Or(
		byTime(readySince(b), readySince(a)),
		cmp.Compare(restarts(b.Pod), restarts(a.Pod)),
		byTime(b.Created, a.Created),
		cmp.Compare(a.Name, b.Name),
	)
}

// ranks say how crowded the place of each candidate is: a higher rank is less loss (R35.6). Without constraints in the template
// the places are nodes, else the domains of each constraint.
func (r *round) ranks(candidates []*pod) map[*pod]float64 {
	order := func(a, b *pod) int {
		return cmp.Or(first(a.Node == "", b.Node == ""), cmp.Compare(phaseRank(a.Pod), phaseRank(b.Pod)), first(!a.ready, !b.ready),
			cmp.Compare(costOf(a.Pod), costOf(b.Pod)), byAge(a, b))
	}
	spread := func(place func(*pod) (string, bool), then func(a, b *pod) int) [][]*pod {
		groups := map[string][]*pod{}
		for _, p := range candidates {
			if where, known := place(p); known {
				groups[where] = append(groups[where], p)
			}
		}
		var out [][]*pod
		for _, group := range groups { //shiplog:unordered: each group is ranked for itself
			slices.SortStableFunc(group, then)
			out = append(out, group)
		}
		return out
	}
	onNodes := map[*pod]float64{}
	for _, group := range spread(func(p *pod) (string, bool) { return p.Node, true }, order) {
		for i, p := range group {
			onNodes[p] = float64(len(group) - 1 - i)
		}
	}
	constraints := r.set.Spec.Template.Spec.TopologySpreadConstraints
	if len(constraints) == 0 {
		return onNodes
	}
	ranks := map[*pod]float64{}
	for _, constraint := range constraints {
		domain := func(p *pod) (string, bool) {
			node := r.World.Node(p.Node)
			if node == nil {
				return "", false
			}
			value, has := node.Labels.Lookup(constraint.TopologyKey)
			return value, has
		}
		then := order
		if constraint.TopologyKey != "kubernetes.io/hostname" {
			then = func(a, b *pod) int {
				return cmp.Or(first(a.Node == "", b.Node == ""), cmp.Compare(phaseRank(a.Pod), phaseRank(b.Pod)), first(!a.ready, !b.ready),
					cmp.Compare(costOf(a.Pod), costOf(b.Pod)), cmp.Compare(onNodes[b], onNodes[a]), byAge(a, b))
			}
		}
		groups := spread(domain, then)
		weight := math.Log(float64(len(groups) + 2))
		for _, group := range groups {
			for i, p := range group {
				ranks[p] += float64(len(group)-i) * weight
			}
		}
	}
	return ranks
}

// candidates returns the Pods that the update could move, in the order in which it would (R37 to R40).
func (r *round) candidates() []*pod {
	var out []*pod
	for i := range r.pods {
		if p := &r.pods[i]; p.updated != (r.updates.update > 0) && !p.preparing {
			out = append(out, p)
		}
	}
	slices.SortStableFunc(out, func(a, b *pod) int {
		return cmp.Or(
			first(a.Node == "", b.Node == ""),
			cmp.Compare(phaseRank(a.Pod), phaseRank(b.Pod)),
			first(!a.ready, !b.ready),
			byAge(a, b),
		)
	})
	out = r.scattered(r.prioritized(out))
	slices.SortStableFunc(out, func(a, b *pod) int { return first(preparingUpdate(a), preparingUpdate(b)) })
	return out
}

func preparingUpdate(p *pod) bool {
	return lifecycleState(p.Pod) == v1beta1.LifecycleStatePreparingUpdate
}

// prioritized puts first what people want first (R39).
func (r *round) prioritized(candidates []*pod) []*pod {
	switch strategy := r.spec.priority; {
	case strategy == nil:
	case len(strategy.WeightPriority) > 0:
		weight := func(p *pod) int {
			sum := 0
			for i := range strategy.WeightPriority {
				term := &strategy.WeightPriority[i]
				if selector, err := metav1.LabelSelectorAsSelector(&term.MatchSelector); err == nil && selector.Matches(p.Labels) {
					sum += int(term.Weight)
				}
			}
			return sum
		}
		slices.SortStableFunc(candidates, func(a, b *pod) int { return cmp.Compare(weight(b), weight(a)) })
	case len(strategy.OrderPriority) > 0:
		level := func(p *pod) (int, int) {
			for i, term := range strategy.OrderPriority {
				if value, has := p.Labels.Lookup(term.OrderedKey); has {
					return i, endingNumber(value)
				}
			}
			return -1, 0
		}
		slices.SortStableFunc(candidates, func(a, b *pod) int {
			levelA, numberA := level(a)
			levelB, numberB := level(b)
			return cmp.Or(cmp.Compare(levelA, levelB), cmp.Compare(numberB, numberA))
		})
	}
	return candidates
}

// endingNumber is the integer at the end of a label's value; 0: there is none.
func endingNumber(value string) int {
	digits := value[strings.LastIndexFunc(value, func(r rune) bool { return r < '0' || r > '9' })+1:]
	number, _ := strconv.Atoi(digits)
	return number
}

// scattered spreads the Pods that a term matches over the whole order (R40). Terms that match most candidates come first.
func (r *round) scattered(candidates []*pod) []*pod {
	matching := func(term v1beta1.UpdateScatterTerm, p *pod) bool {
		value, has := p.Labels.Lookup(term.Key)
		return has && value == term.Value
	}
	type counted struct {
		term  v1beta1.UpdateScatterTerm
		count int
	}
	var terms []counted
	for _, term := range r.spec.scatter {
		one := counted{term: term}
		for _, p := range candidates {
			if matching(term, p) {
				one.count++
			}
		}
		if one.count > 0 {
			terms = append(terms, one)
		}
	}
	slices.SortStableFunc(terms, func(a, b counted) int { return cmp.Compare(b.count, a.count) })
	for _, one := range terms {
		all := 0
		for i := range r.pods {
			if matching(one.term, &r.pods[i]) {
				all++
			}
		}
		candidates = scatter(candidates, func(p *pod) bool { return matching(one.term, p) }, all, len(r.pods)-all)
	}
	return candidates
}

// scatter spreads the candidates that match over the others. all and others count the matching and other Pods of the workload.
func scatter(candidates []*pod, matches func(*pod) bool, all, others int) []*pod {
	var matching, rest []*pod
	for _, p := range candidates {
		if matches(p) {
			matching = append(matching, p)
		} else {
			rest = append(rest, p)
		}
	}
	if len(matching) <= 1 || len(rest) <= 1 {
		return candidates
	}
	last := matching[len(matching)-1]
	matching = matching[:len(matching)-1]
	m, o := len(matching), len(rest)
	// The shares that the groups would have over the whole workload, and those that they have among the candidates.
	allMatching, allOthers := all-1, others
	var groups, ofMatching, ofRest, before int
	if allOthers*m >= o*allMatching {
		groups, ofMatching, ofRest = grouped(m, o)
	} else {
		_, ofMatching, ofRest = grouped(allMatching, allOthers)
		groups = min(m/ofMatching, o/ofRest)
		before = o - groups*ofRest
	}
	out := slices.Clone(rest[:before])
	rest = rest[before:]
	for range groups {
		a, b := min(ofMatching, len(matching)), min(ofRest, len(rest))
		out = append(append(out, matching[:a]...), rest[:b]...)
		matching, rest = matching[a:], rest[b:]
	}
	return append(append(append(out, matching...), rest...), last)
}

// grouped says into how many groups x and y things go together, and how many of each are in one; rounded half up.
func grouped(x, y int) (groups, ofX, ofY int) {
	groups = max(min(x, y), 1)
	half := func(n int) int { return (2*n + groups) / (2 * groups) }
	return groups, max(half(x), 1), max(half(y), 1)
}

// first puts what is true first.
func first(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

func phaseRank(p *world.Pod) int {
	return slices.Index([]string{"Pending", "Unknown", "Running"}, p.Phase)
}

// byTime orders times; a zero time counts as most recent.
func byTime(a, b time.Time) int {
	if a.IsZero() || b.IsZero() {
		return first(!a.IsZero(), !b.IsZero())
	}
	return a.Compare(b)
}

// readySince is when a ready Pod became so; zero for one that is not.
func readySince(p *pod) time.Time {
	if !p.ready {
		return time.Time{}
	}
	return p.Condition("Ready").LastTransitionTime
}

func restarts(p *world.Pod) int32 {
	most := int32(0)
	for _, status := range p.Statuses {
		most = max(most, status.RestartCount)
	}
	return most
}

// costOf reads the deletion cost; "+5", "007" and what is no number are 0.
func costOf(p *world.Pod) int64 {
	text := p.Annotations.Get(deletionCost)
	cost, err := strconv.ParseInt(text, 10, 32)
	if err != nil || strconv.FormatInt(cost, 10) != text {
		return 0
	}
	return cost
}
