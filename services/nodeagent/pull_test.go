package nodeagent

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/integration/testbed"
	"shiplog.dev/internal/journal"
)

// unique is an image that nobody pulled before: containerd keeps what it has.
func unique(name string) string { return fmt.Sprintf("%s:v%d", name, time.Now().UnixNano()) }

// wantProgress waits until a word about a pull says how far it is, and returns the word.
func wantProgress(t *testing.T, log journal.Journal, pull uint64) *shiplogv1.CallObserved {
	t.Helper()
	var seen *shiplogv1.CallObserved
	testbed.Eventually(t, 30*time.Second, func() error {
		word, _, err := log.LastOfCall(t.Context(), "node-1", pull)
		if err != nil {
			return err
		}
		if word == nil || word.Entry.GetCallObserved().GetBytesDone() == 0 {
			return fmt.Errorf("the newest word is %v", word)
		}
		seen = word.Entry.GetCallObserved()
		return nil
	})
	return seen
}

// tellsProgress: two pulls at a time, each with its own numbers.
//
// image-pull R42: progress of a tag.
func tellsProgress(t *testing.T, m machine) {
	log := journal.NewMemory(time.Now)
	start(t, m, log, quick)
	var pulls []uint64
	for _, name := range []string{"trickle", "second/trickle"} {
		pulls = append(pulls, command(t, log, pullOf(unique(name))))
	}
	for _, pull := range pulls {
		applied(t, log, pull)
	}
	words := map[uint64][]*shiplogv1.CallObserved{}
	for sequence := uint64(1); sequence <= end(t, log); sequence++ {
		record, err := log.At(t.Context(), sequence)
		if err != nil {
			t.Fatal(err)
		}
		if seen := record.Entry.GetCallObserved(); seen.GetBytesTotal() > 0 {
			words[record.Entry.Cause] = append(words[record.Entry.Cause], seen)
		}
	}
	if f, is := m.(*fakeRuntime); is && !f.tells() {
		if len(words) > 0 {
			t.Errorf("a runtime that tells nothing is said to have told %v", words)
		}
		return
	}
	for _, pull := range pulls {
		said := words[pull]
		if len(said) < 3 {
			t.Errorf("pull %d: %d words about how far it is: %v", pull, len(said), said)
		}
		for i, word := range said {
			if word.BytesTotal < trickleBytes || word.BytesTotal != said[0].BytesTotal || word.BytesDone > word.BytesTotal ||
				i > 0 && word.BytesDone <= said[i-1].BytesDone {
				t.Errorf("pull %d: word %d of %v", pull, i, said)
			}
		}
	}
}

// timesOut: a slow registry ends an attempt, and the next one gets the image.
//
// image-pull R44, R47: attempts, and what is said of one that took too long.
func timesOut(t *testing.T, m machine) {
	log := journal.NewMemory(time.Now)
	start(t, m, log, quick)
	pull := pullOf(unique("trickle"))
	image := pull.GetPullImage().Image
	pull.RunWithin = durationpb.New(time.Second)
	wantRefused(t, log, command(t, log, pull), "TimedOut", "pulling image "+image+" is canceled")
	next := pullOf(image)
	next.Attempt = 2
	if found := applied(t, log, command(t, log, next)).GetPulledImage(); found.GetImageId() == "" || found.GetPresent() {
		t.Errorf("found %v", found)
	}
}

// losesTheRuntimeInAPull: the runtime is killed while it pulls; the same attempt gets the image from the one that comes back.
func losesTheRuntimeInAPull(t *testing.T, m machine) {
	log := journal.NewMemory(time.Now)
	start(t, m, log, quick)
	pull := command(t, log, pullOf(unique("trickle")))
	if f, is := m.(*fakeRuntime); is && !f.tells() {
		wantPulls(t, f, 1)
	} else {
		wantProgress(t, log, pull)
	}
	m.restart(t)
	if found := applied(t, log, pull).GetPulledImage(); found.GetImageId() == "" || found.GetPresent() {
		t.Errorf("found %v", found)
	}
}

// losesTheRuntimeInAStop: the same, while it waits for a container that will not end.
func losesTheRuntimeInAStop(t *testing.T, m machine) {
	log := journal.NewMemory(time.Now)
	start(t, m, log, quick)
	m.run(t, "stubborn", "sh", "-c", "trap : TERM; while :; do sleep 1; done")
	id := wantRunning(t, log, "stubborn").Id
	stop := command(t, log, stopOf(id, 5*time.Second))
	wantState(t, log, stop, shiplogv1.CallObserved_STATE_RUNNING)
	m.restart(t)
	if took := applied(t, log, stop).GetTook().AsDuration(); took < 5*time.Second {
		t.Errorf("it was not waited for: %s", took)
	}
	wantStopped(t, log, "stubborn", id)
	m.remove(t, "stubborn")
	wantGone(t, log, "stubborn")
}

func wantPulls(t *testing.T, f *fakeRuntime, want int) {
	t.Helper()
	testbed.Eventually(t, 10*time.Second, func() error {
		f.mu.Lock()
		defer f.mu.Unlock()
		if len(f.pulls) != want {
			return fmt.Errorf("%d pulls", len(f.pulls))
		}
		return nil
	})
}

// TestPullsWaitForATurn, and one that waits can be stopped at once.
//
// image-pull R43, D17: so many pulls at a time, first come first served; a stopped one does not wait for its turn.
func TestPullsWaitForATurn(t *testing.T) {
	t.Parallel()
	f, log := startFake(t, "v2.1.0"), journal.NewMemory(time.Now)
	startOptions(t, f, log, quick, Options{Pulls: 1}, nil)
	first := command(t, log, pullOf("slow:v1"))
	wantPulls(t, f, 1)
	second := command(t, log, pullOf("slow:v2"))
	wantState(t, log, second, shiplogv1.CallObserved_STATE_TAKEN)
	third := command(t, log, pullOf("app:v3"))
	wantState(t, log, third, shiplogv1.CallObserved_STATE_TAKEN)
	applied(t, log, command(t, log, &shiplogv1.Command{Effect: &shiplogv1.Command_CancelCall{CancelCall: &shiplogv1.CancelCall{Command: second}}}))
	wantRefused(t, log, second, "Stopped", "pulling image slow:v2 is stopped")
	if _, outcome, err := log.LastOfCall(t.Context(), "node-1", first); err != nil || outcome != nil {
		t.Errorf("the second was not stopped while the first ran: %v, %v", outcome, err)
	}
	applied(t, log, first)
	applied(t, log, third)
	wantPulls(t, f, 2)
}

// TestPullRequest: what the runtime is asked.
//
// image-pull R48, D1, D11: image with tag or digest, sandbox with the annotation of the puller, all fields of a credential.
func TestPullRequest(t *testing.T) {
	t.Parallel()
	f, log := startFake(t, "v2.1.0"), journal.NewMemory(time.Now)
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "tokens"}, Type: corev1.SecretTypeDockerConfigJson,
		Data: map[string][]byte{corev1.DockerConfigJsonKey: []byte(`{"auths":{"docker.io":{"identitytoken":"I","registrytoken":"R"}}}`)},
	}
	startWith(t, f, log, quick, fake.NewClientset(secret))
	image := "docker.io/library/app@" + digestOf("app")
	pull := pullWith(image, "tokens")
	pull.GetPullImage().Labels = map[string]string{"team": "blue"}
	pull.GetPullImage().Annotations = map[string]string{"note": "x"}
	applied(t, log, command(t, log, pull))
	asked := f.pulls[0]
	sandbox := asked.GetSandboxConfig()
	if asked.GetImage().GetImage() != image || fmt.Sprint(sandbox.GetLabels()) != "map[team:blue]" ||
		fmt.Sprint(sandbox.GetAnnotations()) != "map[apps.kruise.io/pulling-image-by:kruise-daemon note:x]" {
		t.Errorf("asked %v", asked)
	}
	if auth := asked.GetAuth(); auth.GetIdentityToken() != "I" || auth.GetRegistryToken() != "R" {
		t.Error("tokens of the Secret are not passed on")
	}
}
