package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"shiplog.dev/deploy/crd"
	"shiplog.dev/integration/testbed"
)

const namespace = "default"

// bareClient is the user agent of the bench: of the user who changes CloneSets, and of the bare client.
const bareClient = "bench"

// cluster is an API server with hollow nodes, and what looks at it.
type cluster struct {
	*testbed.Cluster
	client *kubernetes.Clientset
	audit  audit
}

// startCluster starts one that has a directory to itself, with our CRDs.
func startCluster(ctx context.Context, dir string, nodes int) (c *cluster, err error) {
	c = &cluster{}
	if c.Cluster, err = testbed.StartCluster(ctx, dir, 0, nodes, os.Stderr); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = c.Down()
		}
	}()
	c.audit.log = c.AuditLog()
	config, err := c.Config()
	if err != nil {
		return nil, err
	}
	if err := crd.Install(ctx, config, nil); err != nil {
		return nil, err
	}
	config.ContentType, config.UserAgent = "application/vnd.kubernetes.protobuf", bareClient
	c.client, err = kubernetes.NewForConfig(config)
	return c, err
}

// setName is the name of a CloneSet of the cell.
func setName(i int) string { return fmt.Sprintf("web-%03d", i) }

// smallName is the name of a CloneSet of ten Pods that is none of the cell's: it is changed where little is to happen.
const (
	smallName = "small"
	smallPods = 10
)

// measuredPods selects the Pods of the cell.
const measuredPods = "bench=measured"

func manifest(name, label string, replicas int) []byte {
	return fmt.Appendf(nil, `{"apiVersion":"apps.kruise.io/v1beta1","kind":"CloneSet","metadata":{"name":%[1]q},"spec":{"replicas":%[3]d,
"updateStrategy":{"type":"RollingUpdate","rollingUpdate":{"podUpdatePolicy":"InPlaceIfPossible","maxUnavailable":"100%%"}},"selector":{"matchLabels":{"app":%[1]q}},
"template":{"metadata":{"labels":{"app":%[1]q,"bench":%[2]q}},"spec":{"containers":[{"name":"main","image":%[4]q}]}}}}`, name, label, replicas, imageOf(0))
}

func imageOf(round int) string { return fmt.Sprintf("nginx:%d", round) }

const cloneSetsPath = "/apis/apps.kruise.io/v1beta1/namespaces/" + namespace + "/clonesets"

// createSet creates a CloneSet whose Pods have a label of the bench.
func (c *cluster) createSet(ctx context.Context, name, label string, replicas int) error {
	return c.client.RESTClient().Post().AbsPath(cloneSetsPath).SetHeader("Content-Type", "application/json").SetHeader("Accept", "application/json").
		Body(manifest(name, label, replicas)).Do(ctx).Error()
}

// changeSet changes fields of a CloneSet's spec with one request.
func (c *cluster) changeSet(ctx context.Context, name string, operations ...string) error {
	return c.client.RESTClient().Patch("application/json-patch+json").AbsPath(cloneSetsPath, name).SetHeader("Accept", "application/json").
		Body([]byte("[" + strings.Join(operations, ",") + "]")).Do(ctx).Error()
}

// listSets decodes the list of CloneSets into a value.
func (c *cluster) listSets(ctx context.Context, into any) error {
	data, err := c.client.RESTClient().Get().AbsPath(cloneSetsPath).SetHeader("Accept", "application/json").DoRaw(ctx)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, into)
}

// sets are the UIDs of the CloneSets, by their names.
func (c *cluster) sets(ctx context.Context) (map[string]string, error) {
	var list metav1.PartialObjectMetadataList
	if err := c.listSets(ctx, &list); err != nil {
		return nil, err
	}
	uids := map[string]string{}
	for _, set := range list.Items {
		uids[set.Name] = string(set.UID)
	}
	return uids, nil
}

func setImage(image string) string {
	return fmt.Sprintf(`{"op":"replace","path":"/spec/template/spec/containers/0/image","value":%q}`, image)
}

func setPodUpdatePolicy(name string) string {
	return fmt.Sprintf(`{"op":"replace","path":"/spec/updateStrategy/rollingUpdate/podUpdatePolicy","value":%q}`, name)
}

func setReplicas(replicas int) string {
	return fmt.Sprintf(`{"op":"replace","path":"/spec/replicas","value":%d}`, replicas)
}
