package nodeagent

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"google.golang.org/protobuf/proto"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/journal"
	"shiplog.dev/internal/journal/embedded"
	"shiplog.dev/services/executor/credentials"
	"shiplog.dev/services/executor/intake"
)

// What the local cluster's registry wants for images below private/.
const (
	registryUser     = "puller"
	registryPassword = "correct-horse-battery-staple"
)

// secretOf is a Secret with a login for a registry.
func secretOf(name, registry, password string) *corev1.Secret {
	auth := base64.StdEncoding.EncodeToString([]byte(registryUser + ":" + password))
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Type: corev1.SecretTypeDockerConfigJson,
		Data: map[string][]byte{corev1.DockerConfigJsonKey: fmt.Appendf(nil, `{"auths":{%q:{"auth":%q}}}`, registry, auth)},
	}
}

func pullWith(image string, secrets ...string) *shiplogv1.Command {
	command := pullOf(image)
	for _, name := range secrets {
		command.GetPullImage().PullSecrets = append(command.GetPullImage().PullSecrets, &shiplogv1.SecretRef{Namespace: "default", Name: name})
	}
	return command
}

// clusterSecrets are those of the tests.
func clusterSecrets() *fake.Clientset {
	malformed := secretOf("malformed", "docker.io", "x")
	malformed.Data[corev1.DockerConfigJsonKey] = []byte("{" + registryPassword)
	return fake.NewClientset(secretOf("right", "https://index.docker.io/v1/", registryPassword), secretOf("wrong", "docker.io/private", "wrong-password"),
		secretOf("elsewhere", "quay.io", registryPassword), malformed,
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "opaque"}})
}

// pullsWithSecrets: Secrets are read at each pull; each credential is tried, and what is missing or malformed is named.
//
// image-pull R49, R50, D9, D11: a malformed Secret does not keep the others from being tried.
func pullsWithSecrets(t *testing.T, m machine) {
	log := journal.NewMemory(time.Now)
	agent := startWith(t, m, log, quick, clusterSecrets())
	image := func() string { return fmt.Sprintf("private/app:v%d", time.Now().UnixNano()) } // containerd keeps what it has
	for what, secrets := range map[string][]string{
		"nobody": nil, "a wrong password": {"wrong"}, "another registry's password": {"elsewhere"}, "no Secret": {"absent"}, "what cannot be read": {"malformed", "opaque"},
	} {
		outcome := ended(t, log, command(t, log, pullWith(image(), secrets...)))
		said := outcome.GetReason().GetMessage()
		if outcome.GetReason().GetCode() != "PullFailed" || strings.Contains(said, "wrong-password") {
			t.Errorf("pulled as %s: %v", what, outcome)
		}
		switch what {
		case "no Secret":
			if missing := outcome.GetPulledImage().GetMissingSecrets(); len(missing) != 1 || missing[0].Name != "absent" {
				t.Errorf("missing: %v", missing)
			}
		case "what cannot be read":
			if !strings.Contains(said, "default/malformed cannot be read") || !strings.Contains(said, "default/opaque") {
				t.Errorf("said: %s", said)
			}
		}
	}
	outcome := applied(t, log, command(t, log, pullWith(image(), "right")))
	if outcome.GetPulledImage().GetImageId() == "" {
		t.Errorf("outcome %v", outcome)
	}
	outcome = applied(t, log, command(t, log, pullWith(image(), "absent", "malformed", "wrong", "right")))
	if missing := outcome.GetPulledImage().GetMissingSecrets(); len(missing) != 1 || missing[0].Name != "absent" {
		t.Errorf("missing: %v", missing)
	}
	if agent.said.count(registryPassword) != 0 || agent.said.count(base64.StdEncoding.EncodeToString([]byte(registryPassword))) != 0 {
		t.Error("the password is in the log lines")
	}
}

// TestSecretsStayOut searches everything that is kept or said for a password that was used.
func TestSecretsStayOut(t *testing.T) {
	t.Parallel()
	f, said, directory := startFake(t, "v2.1.0"), &lines{}, t.TempDir()
	logger := zerolog.New(said).Level(zerolog.TraceLevel)
	log, err := journal.Open(t.Context(), journal.Options{Server: &embedded.Server{Directory: directory}, Log: logger})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	own, err := log.Join(t.Context(), "node-1")
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	ctx, cancel := context.WithCancel(context.Background())
	var both sync.WaitGroup
	defer both.Wait()
	defer cancel()
	both.Go(func() {
		_ = intake.Run(ctx, intake.Options{Journal: log, Credentials: credentials.New(clusterSecrets(), log).Answer, Logger: logger, Writer: "executor/test"})
	})
	both.Go(func() {
		_ = run(ctx, Options{Node: "node-1", Endpoint: f.endpoint(), Log: own, Logger: logger, Writer: "nodeagent/test"}, quick)
	})
	const image = "private/app:sought"
	applied(t, log, command(t, log, pullWith(image, "wrong", "malformed", "right")))
	ended(t, log, command(t, log, pullWith("private/app:missing", "right", "wrong")))

	auth := base64.StdEncoding.EncodeToString([]byte(registryUser + ":" + registryPassword))
	secrets := [][]byte{[]byte(registryPassword), []byte(base64.StdEncoding.EncodeToString([]byte(registryPassword))), []byte(auth), []byte(auth[8:24]), []byte("wrong-password")}
	sought := func(where string, data []byte) {
		for _, secret := range secrets {
			if bytes.Contains(data, secret) {
				t.Errorf("%s holds %s", where, secret)
			}
		}
	}
	found := false
	for sequence, last := uint64(1), end(t, log); sequence <= last; sequence++ {
		record, err := log.At(t.Context(), sequence)
		if err != nil || record == nil {
			t.Fatalf("entry %d: %v", sequence, err)
		}
		data, err := proto.Marshal(record.Entry)
		if err != nil {
			t.Fatal(err)
		}
		sought(fmt.Sprintf("entry %d at %s", sequence, record.Subject), append(data, record.Subject...))
		found = found || bytes.Contains(data, []byte(image))
	}
	cancel()
	both.Wait()
	own.Close()
	log.Close()
	files := 0
	err = filepath.WalkDir(directory, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		sought(path, data)
		files++
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	said.mu.Lock()
	defer said.mu.Unlock()
	sought("what was said", said.text.Bytes())
	if !found || files == 0 || said.text.Len() == 0 {
		t.Errorf("nothing was searched: the image in the log %t, %d files, %d bytes said", found, files, said.text.Len())
	}
}
