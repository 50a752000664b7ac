package controlplane

import (
	"context"
	"fmt"
	"io"
	"net"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// serve lets nodes and Pods reach the API server, which listens on a loopback address only: it forwards from the
// gateway's address, and makes that address the endpoint of the Service "kubernetes".
func (c *ControlPlane) serve(ctx context.Context, client kubernetes.Interface) error {
	backend := c.URL[len("https://"):]
	_, portText, err := net.SplitHostPort(backend)
	if err != nil {
		return err
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		return err
	}
	gateway := c.config.Gateway.String()
	c.listener, err = net.Listen("tcp", net.JoinHostPort(gateway, portText))
	if err != nil {
		return err
	}
	go forward(c.listener, backend)

	name, protocol, number, ready := "https", corev1.ProtocolTCP, int32(port), true
	_, err = client.DiscoveryV1().EndpointSlices("default").Create(ctx, &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: "kubernetes", Labels: map[string]string{discoveryv1.LabelServiceName: "kubernetes"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{gateway}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}}},
		Ports:       []discoveryv1.EndpointPort{{Name: &name, Protocol: &protocol, Port: &number}},
	}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create the endpoints of the Service \"kubernetes\": %w", err)
	}
	return nil
}

// forward carries connections until the listener is closed.
func forward(listener net.Listener, backend string) {
	for {
		from, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer from.Close()
			to, err := net.Dial("tcp", backend)
			if err != nil {
				return // the API server is gone; the client sees a closed connection
			}
			defer to.Close()
			go func() {
				_, _ = io.Copy(to, from)
				_ = to.(*net.TCPConn).CloseWrite()
			}()
			_, _ = io.Copy(from, to)
		}()
	}
}
