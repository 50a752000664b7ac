package world

import (
	"slices"
	"unique"
)

// shared returns the one copy of a text that many objects hold: of ten thousand Pods most labels, images and conditions are the same.
func shared[T ~string](text T) T { return T(unique.Make(string(text)).Value()) }

// share makes a Pod that was just decoded hold what others hold too only once.
func (p *Pod) share() {
	for _, text := range []*string{&p.Namespace, &p.Owner.APIVersion, &p.Owner.Kind, &p.Owner.Name, &p.Node, &p.Phase, &p.QOS, &p.RestartPolicy} {
		*text = shared(*text)
	}
	p.Owner.UID = shared(p.Owner.UID)
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
	p.Conditions = slices.Clone(p.Conditions) // JSON leaves room for more
	for i := range p.Conditions {
		c := &p.Conditions[i]
		c.Type, c.Status, c.Reason, c.Message = shared(c.Type), shared(c.Status), shared(c.Reason), shared(c.Message)
	}
}
