package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"

	"shiplog.dev/integration/testbed"
)

// reactions measures the floor of idling: how long a bare client takes that watches CloneSets and writes to a Pod as soon as it sees a
// spec changed, when Shiplog has ended and its webhooks are gone.
func (c *cell) reactions(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute+time.Duration(c.changes)*2*silence)
	defer cancel() // ends the watch, too
	webhooks := c.ours.client.AdmissionregistrationV1()
	if err := errors.Join(
		webhooks.MutatingWebhookConfigurations().DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}),
		webhooks.ValidatingWebhookConfigurations().DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}),
	); err != nil {
		return fmt.Errorf("take the webhooks away for the floor: %w", err)
	}
	say("the reaction of a bare client to %d spec changes", c.changes)
	config, err := c.ours.Config()
	if err != nil {
		return err
	}
	config.UserAgent = bareClient
	objects, err := dynamic.NewForConfig(config)
	if err != nil {
		return err
	}
	sets := objects.Resource(schema.GroupVersionResource{Group: "apps.kruise.io", Version: "v1beta1", Resource: "clonesets"}).Namespace(namespace)
	set, err := sets.Get(ctx, smallName, metav1.GetOptions{})
	if err != nil {
		return err
	}
	pods, err := c.ours.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: "app=" + smallName})
	if err != nil {
		return err
	}
	if len(pods.Items) == 0 {
		return errors.New("the small CloneSet has no Pod left to write to")
	}
	pod := pods.Items[0].Name
	mark, err := c.ours.audit.now()
	if err != nil {
		return err
	}
	seen, err := sets.Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + smallName, ResourceVersion: set.GetResourceVersion()})
	if err != nil {
		return err
	}
	defer seen.Stop()
	for i := range c.changes {
		image := fmt.Sprint("nginx:floor", i)
		if err := c.ours.changeSet(ctx, smallName, setImage(image)); err != nil {
			return err
		}
		if event := <-seen.ResultChan(); event.Type != watch.Modified {
			return fmt.Errorf("the bare client sees %q %v where a CloneSet was changed", event.Type, event.Object)
		}
		patch, err := json.Marshal(map[string]any{"spec": map[string]any{"containers": []any{map[string]any{"name": "main", "image": image}}}})
		if err != nil {
			return err
		}
		if _, err := c.ours.client.CoreV1().Pods(namespace).Patch(ctx, pod, types.StrategicMergePatchType, patch, metav1.PatchOptions{}); err != nil {
			return err
		}
		if err := pause(ctx, silence); err != nil {
			return err
		}
	}
	sinceAnswer, _, err := c.ours.delays(mark, smallName, func(a testbed.Audit) bool { return a.UserAgent == bareClient })
	c.result.Idle.Floor = milliseconds(sinceAnswer)
	return err
}
