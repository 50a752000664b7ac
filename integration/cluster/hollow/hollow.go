// Package hollow runs nodes without containers: it registers Node objects, keeps them alive, and writes the status of
// the Pods bound to them as a kubelet would, down to restart counts, image IDs, readiness gates and observed
// generations. A few thousand Pods cost what their API writes cost. It touches nothing but the API server.
//
// What it leaves out: Events, probes, volumes, and the Pod's last status before it is deleted. A restart by hand is an
// image change: there is no process to signal. Image tags missing, crash and done behave as package registry's do.
package hollow

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	statusutil "k8s.io/kubernetes/pkg/util/pod"
)

const (
	// Label tells hollow nodes ("true") from real ones ("false").
	Label = "shiplog.dev/hollow"

	heartbeat = 10 * time.Second // a kubelet's
	lease     = 40               // seconds; a kubelet's
	resync    = 10 * time.Second // after this time a kubelet looks again at a Pod that should be gone
	writers   = 64
)

// Options say what nodes to run.
type Options struct {
	Prefix     string // the names are Prefix-1, Prefix-2, ...
	Nodes      int
	StartDelay time.Duration // from a Pod's arrival or image change to the running container
	Log        func(format string, args ...any)
}

// Nodes are running hollow nodes.
type Nodes struct {
	options Options
	client  kubernetes.Interface
	pods    corelisters.PodLister
	queue   workqueue.TypedRateLimitingInterface[types.NamespacedName]
	hosts   map[string]string // node name to address

	mu     sync.Mutex
	latest map[types.UID]*corev1.Pod // what our last write answered, while the watch has not shown it yet
	due    map[types.UID]start
	ips    map[string]types.UID
	nextIP netip.Addr
}

type start struct {
	what string
	at   time.Time
}

// Pod and node addresses come from ranges that no real network routes.
var (
	podNet  = netip.MustParsePrefix("100.64.0.0/10")
	nodeNet = netip.MustParsePrefix("198.18.0.0/15")
)

// Run registers the nodes, calls ready once they and their Pods are known, and serves until the context ends. The
// nodes stay registered; without Run they become NotReady, as real ones do.
func Run(ctx context.Context, config *rest.Config, options Options, ready func()) error {
	config = rest.CopyConfig(config)
	config.QPS = -1
	config.ContentType = "application/vnd.kubernetes.protobuf"
	config.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	config.UserAgent = "hollow-kubelet"
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("make a client for hollow nodes: %w", err)
	}
	offset := fnv.New32a()
	offset.Write([]byte(options.Prefix)) // two sets of hollow nodes in one cluster start at different addresses
	n := &Nodes{
		options: options,
		client:  client,
		queue: workqueue.NewTypedRateLimitingQueue(
			workqueue.NewTypedItemExponentialFailureRateLimiter[types.NamespacedName](20*time.Millisecond, 5*time.Second)),
		hosts:  map[string]string{},
		latest: map[types.UID]*corev1.Pod{},
		due:    map[types.UID]start{},
		ips:    map[string]types.UID{},
		nextIP: skip(podNet, offset.Sum32()),
	}
	for i := 1; i <= options.Nodes; i++ {
		n.hosts[options.Prefix+"-"+strconv.Itoa(i)] = skip(nodeNet, offset.Sum32()+uint32(i)).String()
	}
	if err := n.each(func(name string, index int) error { return n.register(ctx, name, index) }); err != nil {
		return err
	}
	go n.renew(ctx)

	factory := informers.NewSharedInformerFactoryWithOptions(client, 0,
		informers.WithTransform(withoutManagedFields),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) {
			o.FieldSelector = fields.OneTermNotEqualSelector("spec.nodeName", "").String()
		}))
	n.pods = factory.Core().V1().Pods().Lister()
	if _, err := factory.Core().V1().Pods().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    n.see,
		UpdateFunc: func(_, pod any) { n.see(pod) },
		DeleteFunc: n.forget,
	}); err != nil {
		return fmt.Errorf("watch the Pods of hollow nodes: %w", err)
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	var workers sync.WaitGroup
	for range writers {
		workers.Go(func() { n.work(ctx) })
	}
	if ctx.Err() == nil {
		ready()
	}
	<-ctx.Done()
	n.queue.ShutDown()
	workers.Wait()
	return nil
}

// Names are the names of the nodes that options ask for.
func (o Options) Names() []string {
	var names []string
	for i := 1; i <= o.Nodes; i++ {
		names = append(names, o.Prefix+"-"+strconv.Itoa(i))
	}
	return names
}

// each calls f for every node, some at a time.
func (n *Nodes) each(f func(name string, index int) error) error {
	var group sync.WaitGroup
	errs := make([]error, n.options.Nodes)
	slots := make(chan struct{}, 16)
	for i, name := range n.options.Names() {
		group.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			errs[i] = f(name, i)
		})
	}
	group.Wait()
	return errors.Join(errs...)
}

func (n *Nodes) register(ctx context.Context, name string, index int) error {
	now := metav1.Now()
	capacity := corev1.ResourceList{
		corev1.ResourceCPU:              resource.MustParse("1000"),
		corev1.ResourceMemory:           resource.MustParse("4Ti"),
		corev1.ResourceEphemeralStorage: resource.MustParse("4Ti"),
		corev1.ResourcePods:             resource.MustParse("5000"),
	}
	condition := func(t corev1.NodeConditionType, s corev1.ConditionStatus, reason string) corev1.NodeCondition {
		return corev1.NodeCondition{Type: t, Status: s, Reason: reason, LastHeartbeatTime: now, LastTransitionTime: now}
	}
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{
			Label:                    "true",
			corev1.LabelHostname:     name,
			corev1.LabelOSStable:     "linux",
			corev1.LabelArchStable:   runtime.GOARCH,
			corev1.LabelTopologyZone: Zone(index),
		}},
		Status: corev1.NodeStatus{
			Capacity: capacity, Allocatable: capacity,
			Addresses: []corev1.NodeAddress{
				{Type: corev1.NodeInternalIP, Address: n.hosts[name]}, {Type: corev1.NodeHostName, Address: name},
			},
			NodeInfo: corev1.NodeSystemInfo{
				KubeletVersion: "v1.36.3", OperatingSystem: "linux", Architecture: runtime.GOARCH,
				ContainerRuntimeVersion: "hollow://1.0.0", OSImage: "none", KernelVersion: "none",
			},
			Conditions: []corev1.NodeCondition{
				condition(corev1.NodeMemoryPressure, corev1.ConditionFalse, "KubeletHasSufficientMemory"),
				condition(corev1.NodeDiskPressure, corev1.ConditionFalse, "KubeletHasNoDiskPressure"),
				condition(corev1.NodePIDPressure, corev1.ConditionFalse, "KubeletHasSufficientPID"),
				condition(corev1.NodeReady, corev1.ConditionTrue, "KubeletReady"),
			},
		},
	}
	// The lease first: a Node without one would soon count as dead.
	if err := n.renewOne(ctx, name); err != nil {
		return err
	}
	existing, err := n.client.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		// An earlier run's: only its status may be out of date.
		if existing, err = n.client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{}); err == nil {
			existing.Status = node.Status
			_, err = n.client.CoreV1().Nodes().UpdateStatus(ctx, existing, metav1.UpdateOptions{})
		}
	}
	if err != nil {
		return fmt.Errorf("register hollow node %s: %w", name, err)
	}
	return nil
}

// Zone spreads nodes over three zones.
func Zone(index int) string { return "zone-" + string(rune('a'+index%3)) }

func (n *Nodes) renew(ctx context.Context) {
	ticker := time.NewTicker(heartbeat)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if err := n.each(func(name string, _ int) error { return n.renewOne(ctx, name) }); err != nil && ctx.Err() == nil {
				n.options.Log("%v", err)
			}
		}
	}
}

func (n *Nodes) renewOne(ctx context.Context, name string) error {
	leases := n.client.CoordinationV1().Leases(corev1.NamespaceNodeLease)
	now := metav1.NowMicro()
	patch := fmt.Appendf(nil, `{"spec":{"renewTime":%q}}`, now.UTC().Format(metav1.RFC3339Micro))
	_, err := leases.Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{})
	if apierrors.IsNotFound(err) {
		_, err = leases.Create(ctx, &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec:       coordinationv1.LeaseSpec{HolderIdentity: &name, LeaseDurationSeconds: new(int32(lease)), RenewTime: &now},
		}, metav1.CreateOptions{})
	}
	if err != nil {
		return fmt.Errorf("renew the lease of hollow node %s: %w", name, err)
	}
	return nil
}

func (n *Nodes) see(object any) {
	pod := object.(*corev1.Pod)
	if pod.Status.PodIP != "" {
		n.mu.Lock()
		n.ips[pod.Status.PodIP] = pod.UID
		n.mu.Unlock()
	}
	if _, ours := n.hosts[pod.Spec.NodeName]; ours {
		n.queue.Add(types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name})
	}
}

func (n *Nodes) forget(object any) {
	if gone, ok := object.(cache.DeletedFinalStateUnknown); ok {
		object = gone.Obj
	}
	pod := object.(*corev1.Pod)
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.latest, pod.UID)
	delete(n.due, pod.UID)
	if n.ips[pod.Status.PodIP] == pod.UID {
		delete(n.ips, pod.Status.PodIP)
	}
}

func (n *Nodes) work(ctx context.Context) {
	for {
		key, down := n.queue.Get()
		if down {
			return
		}
		// Tried again for as long as the Pod is there, as by a kubelet, but at most every five seconds.
		if err := n.sync(ctx, key); err != nil && ctx.Err() == nil {
			n.options.Log("hollow node: %v", err)
			n.queue.AddRateLimited(key)
		} else {
			n.queue.Forget(key)
		}
		n.queue.Done(key)
	}
}

// sync makes one step with a Pod: one write at most.
func (n *Nodes) sync(ctx context.Context, key types.NamespacedName) error {
	pod, err := n.pods.Pods(key.Namespace).Get(key.Name)
	if err != nil {
		return nil // gone
	}
	pod = n.newest(pod)
	if pod.DeletionTimestamp != nil {
		if wait := untilDelete(pod, time.Now()); wait > 0 {
			n.queue.AddAfter(key, wait)
			return nil
		}
		return n.delete(ctx, pod)
	}
	mayStart, wait := n.mayStart(pod)
	if wait > 0 {
		n.queue.AddAfter(key, wait)
	}
	host := n.hosts[pod.Spec.NodeName]
	m := moment{now: metav1.Now().Rfc3339Copy(), mayStart: mayStart, hostIP: host, podIP: host}
	if !pod.Spec.HostNetwork && pod.Status.PodIP == "" && mayStart {
		if m.podIP, err = n.takeIP(pod.UID); err != nil {
			return err
		}
	}
	updated, _, unchanged, err := statusutil.PatchPodStatus(ctx, n.client, pod.Namespace, pod.Name, pod.UID, pod.Status, next(pod, m))
	switch {
	case apierrors.IsNotFound(errors.Unwrap(err)), err != nil && strings.Contains(err.Error(), "not found"):
		return nil // deleted meanwhile (the kubelet's helper does not wrap its error)
	case err != nil:
		return err
	case !unchanged:
		n.mu.Lock()
		n.latest[pod.UID] = updated
		n.mu.Unlock()
	}
	return nil
}

// newest is the Pod as the watch shows it or as our last write left it, whichever is newer. Judging by an older one
// would repeat a restart.
func (n *Nodes) newest(pod *corev1.Pod) *corev1.Pod {
	n.mu.Lock()
	defer n.mu.Unlock()
	ours, ok := n.latest[pod.UID]
	if !ok {
		return pod
	}
	if version(ours) > version(pod) {
		return ours
	}
	delete(n.latest, pod.UID)
	return pod
}

func version(pod *corev1.Pod) uint64 {
	v, _ := strconv.ParseUint(pod.ResourceVersion, 10, 64)
	return v
}

// untilDelete is how long to wait before a Pod that is being deleted is deleted for good. The API server does that in
// two writes: the grace period becomes zero, then the Pod goes. When it dies in between, the Pod stays until somebody
// asks again, which a kubelet does from time to time.
func untilDelete(pod *corev1.Pod, now time.Time) time.Duration {
	if pod.DeletionGracePeriodSeconds == nil || *pod.DeletionGracePeriodSeconds != 0 {
		return 0
	}
	return max(resync-now.Sub(pod.DeletionTimestamp.Time), 0)
}

func (n *Nodes) delete(ctx context.Context, pod *corev1.Pod) error {
	if pod.DeletionGracePeriodSeconds != nil && *pod.DeletionGracePeriodSeconds == 0 && len(pod.Finalizers) > 0 {
		return nil // done; a finalizer holds it
	}
	err := n.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{
		GracePeriodSeconds: new(int64(0)), Preconditions: &metav1.Preconditions{UID: &pod.UID},
	})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("delete Pod %s/%s for good: %w", pod.Namespace, pod.Name, err)
	}
	return nil
}

// mayStart tells whether what the Pod has to start may start now, and if not, for how long.
func (n *Nodes) mayStart(pod *corev1.Pod) (bool, time.Duration) {
	if n.options.StartDelay == 0 {
		return true, 0
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	what, needed := needsStart(pod)
	if !needed {
		delete(n.due, pod.UID)
		return true, 0
	}
	planned, ok := n.due[pod.UID]
	if !ok || planned.what != what {
		planned = start{what: what, at: time.Now().Add(n.options.StartDelay)}
		n.due[pod.UID] = planned
	}
	wait := time.Until(planned.at)
	return wait <= 0, max(wait, 0)
}

func (n *Nodes) takeIP(uid types.UID) (string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for range 1 << 16 {
		ip := n.nextIP.String()
		n.nextIP = n.nextIP.Next()
		if !podNet.Contains(n.nextIP) {
			n.nextIP = podNet.Addr().Next()
		}
		if _, taken := n.ips[ip]; !taken {
			n.ips[ip] = uid
			return ip, nil
		}
	}
	return "", fmt.Errorf("no address for a Pod is free in %s: delete Pods", podNet)
}

// skip is the address that lies offset after the first of a range, going round at its end.
func skip(net netip.Prefix, offset uint32) netip.Addr {
	a := net.Addr().As4()
	size := uint32(1) << (32 - net.Bits())
	value := uint32(a[0])<<24 | uint32(a[1])<<16 | uint32(a[2])<<8 | uint32(a[3])
	value += 1 + offset%(size-2)
	return netip.AddrFrom4([4]byte{byte(value >> 24), byte(value >> 16), byte(value >> 8), byte(value)})
}

func withoutManagedFields(object any) (any, error) {
	if meta, ok := object.(metav1.Object); ok {
		meta.SetManagedFields(nil)
	}
	return object, nil
}
