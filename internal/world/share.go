package world

import (
	"reflect"
	"unique"
)

// shared returns the one copy of a text that many objects hold: of ten thousand Pods most labels, images and conditions are the same.
func shared(text string) string { return unique.Make(text).Value() }

// share makes a Pod that was just decoded hold what others hold too only once.
func (p *Pod) share() {
	for _, text := range []*string{&p.Namespace, &p.Node, &p.Phase, &p.QOS, &p.RestartPolicy} {
		*text = shared(*text)
	}
	for i := range p.Gates {
		p.Gates[i] = shared(p.Gates[i])
	}
	for i := range p.Containers {
		c := &p.Containers[i]
		c.Name, c.Image = shared(c.Name), shared(c.Image)
	}
	for i := range p.Statuses {
		s := &p.Statuses[i]
		s.Name, s.Image, s.ImageID = shared(s.Name), shared(s.Image), shared(s.ImageID)
	}
}

// share makes a Pod that a fact shows hold what others hold too only once, where decoding cannot tell: mostly it has the containers that it had before,
// or those that the newest fact of its owner's other Pods shows.
func (w *World) share(pod, before *Pod) {
	pod.takeFrom(before)
	if siblings := w.podsOf[pod.Owner.UID()]; siblings != nil {
		pod.takeFrom(siblings.newest)
		siblings.newest = pod
	}
}

// takeFrom replaces parts of a Pod by the same parts of another. Neither ever changes.
func (p *Pod) takeFrom(other *Pod) {
	if other == nil {
		return
	}
	takeIfSame(&p.Containers, other.Containers)
	takeIfSame(&p.InitResources, other.InitResources)
	takeIfSame(&p.Gates, other.Gates)
	for i := range min(len(p.Statuses), len(other.Statuses)) {
		mine, others := &p.Statuses[i], &other.Statuses[i]
		takeIfSame(&mine.Resources, others.Resources)
		takeIfSame(&mine.LastState.Terminated, others.LastState.Terminated)
	}
}

func takeIfSame[T any](mine *T, others T) {
	if reflect.DeepEqual(*mine, others) {
		*mine = others
	}
}
