package credentials_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nkeys"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	kubetesting "k8s.io/client-go/testing"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/journal"
	"shiplog.dev/internal/keyring"
	"shiplog.dev/services/executor/credentials"
)

func secret(name string, kind corev1.SecretType, key, content string) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}, Type: kind, Data: map[string][]byte{key: []byte(content)}}
}

func auth(user string) string {
	return fmt.Sprintf(`{"auth":%q}`, base64.StdEncoding.EncodeToString([]byte(user+":pw")))
}

type fixture struct {
	*testing.T
	log     *journal.Memory
	clerk   *credentials.Clerk
	client  *fake.Clientset
	command uint64
	key     nkeys.KeyPair
	public  string
}

func start(t *testing.T) *fixture {
	f := &fixture{T: t, log: journal.NewMemory(time.Now), client: fake.NewClientset(
		secret("new", corev1.SecretTypeDockerConfigJson, ".dockerconfigjson", `{"auths":{"reg.io":`+auth("new")+`,"other.io":`+auth("other")+`}}`),
		secret("old", corev1.SecretTypeDockercfg, ".dockercfg", `{"reg.io/team":`+auth("old")+`}`),
		secret("opaque", corev1.SecretTypeOpaque, "password", "pw"),
		secret("unnamed", corev1.SecretTypeDockerConfigJson, ".dockerconfigjson", `{"auths":{"reg.io":`+auth("unnamed")+`}}`),
	)}
	f.clerk = credentials.New(f.client, f.log)
	pull := &shiplogv1.PullImage{Image: "reg.io/team/app:1"}
	for _, name := range []string{"absent", "opaque", "new", "old"} {
		pull.PullSecrets = append(pull.PullSecrets, &shiplogv1.SecretRef{Namespace: "shop", Name: name})
	}
	var err error
	f.command, err = f.log.AppendCommands(t.Context(), 0, &shiplogv1.Entry{Writer: "planner/test", Kind: &shiplogv1.Entry_Command{Command: &shiplogv1.Command{
		Node: "n1", Object: &shiplogv1.ObjectRef{Resource: "nodeimages", Name: "n1"}, Effect: &shiplogv1.Command_PullImage{PullImage: pull}}}})
	f.check(err)
	f.key, err = nkeys.CreateCurveKeys()
	f.check(err)
	f.public, err = f.key.PublicKey()
	f.check(err)
	return f
}

func (f *fixture) check(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

func (f *fixture) word(entry *shiplogv1.Entry) {
	f.Helper()
	entry.Writer, entry.Cause = "nodeagent/test", f.command
	_, err := f.log.AppendWord(f.Context(), entry)
	f.check(err)
}

func (f *fixture) runs() {
	f.word(&shiplogv1.Entry{Kind: &shiplogv1.Entry_CallObserved{CallObserved: &shiplogv1.CallObserved{Node: "n1", State: shiplogv1.CallObserved_STATE_RUNNING}}})
}

func (f *fixture) wantRefused(what, node string, request journal.CredentialsRequest) {
	f.Helper()
	if answer, err := f.clerk.Answer(f.Context(), node, request); !errors.Is(err, journal.ErrRefused) || len(answer.Sealed) > 0 {
		f.Errorf("%s: %v, %d bytes", what, err, len(answer.Sealed))
	}
}

func TestOnlyForTheOpenPullOfTheNode(t *testing.T) {
	f := start(t)
	own := journal.CredentialsRequest{Command: f.command, Key: f.public}
	f.wantRefused("before the pull runs", "n1", own)
	f.runs()
	f.wantRefused("by another node", "n2", own)
	f.wantRefused("for no command", "n1", journal.CredentialsRequest{Command: f.command + 1, Key: f.public})
	f.wantRefused("for nothing", "n1", journal.CredentialsRequest{Key: f.public})
	f.wantRefused("without a key", "n1", journal.CredentialsRequest{Command: f.command})
	answer, err := f.clerk.Answer(t.Context(), "n1", own)
	f.check(err)
	found, err := keyring.Open(answer.Sealed, answer.Sender, f.key)
	f.check(err)
	if len(found) != 2 || found[0].Username != "new" || found[0].Password != "pw" || found[1].Username != "old" {
		t.Errorf("%d credentials", len(found))
	}
	if fmt.Sprint(answer.Missing, answer.Malformed) != "[shop/absent] [shop/opaque]" {
		t.Errorf("missing %v, malformed %v", answer.Missing, answer.Malformed)
	}
	stranger, err := nkeys.CreateCurveKeys()
	f.check(err)
	if _, err := keyring.Open(answer.Sealed, answer.Sender, stranger); err == nil {
		t.Error("somebody else opens it")
	}
	f.word(&shiplogv1.Entry{Kind: &shiplogv1.Entry_Outcome{Outcome: &shiplogv1.Outcome{Result: shiplogv1.Outcome_RESULT_APPLIED, Node: "n1"}}})
	f.wantRefused("after the pull", "n1", own)
}

// TestTrouble: an API server that does not answer is no refusal, and ends in no anonymous pull.
func TestTrouble(t *testing.T) {
	f := start(t)
	f.runs()
	f.client.PrependReactor("get", "secrets", func(kubetesting.Action) (bool, runtime.Object, error) { return true, nil, errors.New("gone fishing") })
	if _, err := f.clerk.Answer(t.Context(), "n1", journal.CredentialsRequest{Command: f.command, Key: f.public}); err == nil || errors.Is(err, journal.ErrRefused) {
		t.Errorf("error %v", err)
	}
}
