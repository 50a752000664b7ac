package nodeimage

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"shiplog.dev/api/kruise/apps/v1beta1"
	"shiplog.dev/internal/world"
)

type owner = corev1.ObjectReference

// Messages of pulls that are given up (R10, R11, R45).
const (
	noResponse   = "node has not responded for a long time"
	tooLate      = "pulling exceeds the activeDeadlineSeconds"
	nodeNotReady = "the Node is not ready"
)

// Codes of outcomes that the executor writes because the agent did not.
const noAgent = "NoAgent"

// Defaults of a tag's policy (2.2).
const (
	defaultTimeout = 600 * time.Second
	defaultBackoff = 3
)

type limits struct {
	timeout  time.Duration
	attempts int
	// active limits all attempts together; 0: nothing does.
	active time.Duration
}

func limitsOf(tag *v1beta1.ImageTagSpec) limits {
	out := limits{defaultTimeout, defaultBackoff + 1, 0}
	policy := tag.PullPolicy
	if policy == nil {
		return out
	}
	if policy.TimeoutSeconds != nil && *policy.TimeoutSeconds > 0 {
		out.timeout = time.Duration(*policy.TimeoutSeconds) * time.Second
	}
	if policy.BackoffLimit != nil && *policy.BackoffLimit >= 0 {
		out.attempts = int(*policy.BackoffLimit) + 1
	}
	if policy.ActiveDeadlineSeconds != nil {
		out.active = time.Duration(*policy.ActiveDeadlineSeconds) * time.Second
	}
	return out
}

// stage is how far the pull of a tag is, by its status and by what the agent has said since.
type stage struct {
	phase v1beta1.ImagePullPhase // "": nobody has begun
	// held is the entry of the status for this version; nil: there is none.
	held           *v1beta1.ImageTagStatus
	begun, at      time.Time // at: when it ended
	progress       int32
	image, message string
	// attempt is the number of the next attempt, from 0, which may begin at retry.
	attempt int
	retry   time.Time
	// deadlines at which the pull has failed.
	deadlines []time.Time
	// missing are Secrets that were named and do not exist.
	missing []string
}

func (s stage) ended() bool {
	return s.phase == v1beta1.ImagePhaseSucceeded || s.phase == v1beta1.ImagePhaseFailed
}

// stageOf works out how far a tag is.
func stageOf(w *world.World, image *world.NodeImage, name string, tag *v1beta1.ImageTagSpec) stage {
	s := stage{held: statusOf(image, name, tag.Tag, tag.Version)}
	if s.held != nil {
		if s.held.StartTime != nil {
			s.begun = s.held.StartTime.Time
		}
		if s.held.CompletionTime != nil {
			s.phase, s.message = s.held.Phase, s.held.Message
			return s
		}
	}
	limits := limitsOf(tag)
	s.follow(w.Call(image.Name, world.Pull, world.ImageReference(name, tag.Tag)), tag, limits)
	if s.image != "" {
		s.image = name + "@" + s.image
	}
	if s.ended() {
		return s
	}
	fail := func(at time.Time, message string) {
		if at.After(w.Now()) {
			s.deadlines = append(s.deadlines, at)
		} else if !s.ended() {
			s.phase, s.at, s.message = v1beta1.ImagePhaseFailed, w.Now(), message
		}
	}
	if asked := tag.CreatedAt; limits.active > 0 && !s.begun.IsZero() {
		fail(s.begun.Add(limits.active), tooLate) // R45
	} else if limits.active > 0 && asked != nil {
		fail(asked.Add(limits.active+SettingsOf(w).ResponseTime), tooLate) // R11
	}
	if node := w.Node(image.Name); node != nil && !node.Ready && tag.CreatedAt != nil { // D7
		fail(later(node.ReadySince, tag.CreatedAt.Time).Add(SettingsOf(w).CreationDelay), nodeNotReady)
	}
	return s
}

// follow takes in what the agent has said of the newest call for a tag.
func (s *stage) follow(call *world.Call, tag *v1beta1.ImageTagSpec, limits limits) {
	if call == nil || call.Version != tag.Version {
		return
	}
	s.attempt = int(call.Attempt)
	if s.begun.IsZero() {
		s.begun = call.Running
	}
	switch {
	case call.State == world.CallAsked && call.Attempt == 0:
	case call.State == world.CallTaken && call.Attempt == 0:
		s.phase = v1beta1.ImagePhaseWaiting
	case call.State != world.CallEnded:
		s.phase = v1beta1.ImagePhasePulling
		if call.BytesTotal > 0 {
			s.progress = int32(min(call.BytesDone*100/call.BytesTotal, 99))
		}
	case call.Applied():
		s.phase, s.at, s.progress = v1beta1.ImagePhaseSucceeded, call.Ended, 100
		s.image = call.Outcome.GetPulledImage().GetImageId()
	default:
		s.phase, s.message = v1beta1.ImagePhasePulling, call.Outcome.GetReason().GetMessage()
		s.attempt++
		for _, secret := range call.Outcome.GetPulledImage().GetMissingSecrets() {
			s.missing = append(s.missing, secret.GetNamespace()+"/"+secret.GetName())
		}
		pause := retryLongest
		if s.attempt < 6 {
			pause = min(retryFirst<<(s.attempt-1), retryLongest)
		}
		s.retry = call.Ended.Add(pause)
		switch {
		case call.Outcome.GetReason().GetCode() == noAgent: // R10
			s.phase, s.at, s.message = v1beta1.ImagePhaseFailed, call.Ended, noResponse
		case s.attempt >= limits.attempts:
			s.phase, s.at = v1beta1.ImagePhaseFailed, call.Ended
			if s.message == "" {
				s.message = "the pull failed"
			}
		}
	}
	if s.ended() && s.begun.IsZero() {
		s.begun = call.Since
	}
}

// status words the stage for the NodeImage; nil: there is nothing to tell yet.
func (s stage) status(tag *v1beta1.ImageTagSpec) *v1beta1.ImageTagStatus {
	if s.phase == "" || s.held != nil && s.held.CompletionTime != nil {
		return s.held
	}
	out := &v1beta1.ImageTagStatus{Tag: tag.Tag, Phase: s.phase, Version: tag.Version, Progress: s.progress, StartTime: stamp(s.begun), Message: s.message}
	if s.ended() {
		out.CompletionTime, out.ImageID = stamp(s.at), s.image
	}
	return out
}

// Outcome is what became of a tag on a node, for the job that asked.
type Outcome struct {
	// Ended says that it came to an end, Failed how.
	Ended, Failed bool
	Message       string
	// Missing are Secrets that were named and do not exist, as namespace/name.
	Missing []string
}

// OutcomeOf returns how far a node is with a tag that it was asked for.
func OutcomeOf(w *world.World, image *world.NodeImage, name string, tag *v1beta1.ImageTagSpec) Outcome {
	s := stageOf(w, image, name, tag)
	return Outcome{s.ended(), s.phase == v1beta1.ImagePhaseFailed, s.message, s.missing}
}

func stamp(at time.Time) *metav1.Time {
	if at.IsZero() {
		return nil
	}
	out := metav1.NewTime(at.UTC().Truncate(time.Second))
	return &out
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// statusOf returns the entry of a tag's version in the status, or nil.
func statusOf(image *world.NodeImage, name, tag string, version int64) *v1beta1.ImageTagStatus {
	tags := image.Status.ImageStatuses[name].Tags
	for i := range tags {
		if tags[i].Tag == tag && tags[i].Version == version {
			return &tags[i]
		}
	}
	return nil
}
