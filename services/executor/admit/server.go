package admit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/rs/zerolog"
	"golang.org/x/sync/semaphore"
	"k8s.io/client-go/rest"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/gate"
	"shiplog.dev/internal/world"
)

// Paths of the server (install-and-config 6, 2.0 line).
const (
	ConvertPath          = "/convert"
	MutateCloneSetPath   = "/mutate-apps-kruise-io-cloneset"
	ValidateCloneSetPath = "/validate-apps-kruise-io-cloneset"
	MutateRestartPath    = "/mutate-apps-kruise-io-containerrecreaterequest"
	ValidateJobPath      = "/validate-apps-kruise-io-imagepulljob"
	ValidateListPath     = "/validate-apps-kruise-io-imagelistpulljob"
	HealthPath           = "/healthz"
)

const (
	// maxReview bounds an admission review: two objects, of which etcd takes none larger than 1.5 MiB.
	maxReview = 8 << 20
	// maxConversion bounds a conversion review, which holds a whole list.
	maxConversion = 128 << 20
	// maxHeld bounds all bodies that are held at once.
	maxHeld = 256 << 20
	// answerWithin is shorter than the API server waits, so that it hears why there is no verdict.
	answerWithin = 8 * time.Second
)

// Options of Handler. All but Registry are required.
type Options struct {
	// Config reaches the API server: to get Pods and to ask for PodTemplates.
	Config *rest.Config
	Gates  gate.Set
	Logger zerolog.Logger
	// Registry takes the metrics; nil: none.
	Registry prometheus.Registerer
	// Admitted is told of every change of a workload's spec that is let through, and of its creation and deletion. It must not
	// wait. The API server may still refuse the change, or ask again. nil: nobody is told.
	Admitted func(*shiplogv1.Admitted)
}

type server struct {
	rules
	logger  zerolog.Logger
	held    *semaphore.Weighted
	seconds *prometheus.HistogramVec
}

// Handler answers the webhooks. The error is about Config.
func Handler(options Options) (http.Handler, error) {
	cluster, err := newAPIServer(options.Config)
	if err != nil {
		return nil, err
	}
	return handler(options, cluster), nil
}

func handler(options Options, cluster Cluster) http.Handler {
	register := promauto.With(options.Registry)
	protected := register.NewCounterVec(prometheus.CounterOpts{
		Name: "workload_deletion_protection", Help: "Workload Deletion Protection",
	}, []string{"kind_namespace_name", "username"})
	s := &server{
		logger: options.Logger, held: semaphore.NewWeighted(maxHeld),
		seconds: register.NewHistogramVec(prometheus.HistogramOpts{
			Name: "shiplog_admission_seconds", Help: "Time to answer a webhook of the API server, by path and by what was answered.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 15),
		}, []string{"path", "answer"}),
	}
	s.rules = rules{gates: options.Gates, cluster: cluster, refused: func(kind, namespace, name, user string) {
		protected.WithLabelValues(kind+"_"+namespace+"_"+name, user).Inc()
		s.logger.Warn().Str("object", kind+" "+namespace+"/"+name).Str("user", user).Msg("refused a deletion: the object is protected by its label")
	}}
	mux := http.NewServeMux()
	mux.Handle("POST "+ConvertPath, s.answer(maxConversion, s.convert))
	mux.Handle("POST "+MutateCloneSetPath, s.answer(maxReview, s.review(s.mutateCloneSet)))
	tell := func(resource string, judge func(context.Context, request) (verdict, error)) http.Handler {
		return s.answer(maxReview, s.review(telling(resource, options.Admitted, judge)))
	}
	mux.Handle("POST "+ValidateCloneSetPath, tell(world.ResourceCloneSets, s.validateCloneSet))
	mux.Handle("POST "+MutateRestartPath, tell(world.ResourceRestartRequests, s.admitRestart))
	mux.Handle("POST "+ValidateJobPath, tell(world.ResourceImagePullJobs, s.validateImagePullJob))
	mux.Handle("POST "+ValidateListPath, tell(world.ResourceImageListPullJobs, s.validateImageListPullJob))
	mux.HandleFunc("GET "+HealthPath, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	return mux
}

// malformed is a body that is no review; the answer to it is 400.
type malformed struct{ error }

// answer reads a body of at most limit bytes, and writes what reply makes of it; reply also says in a word what it answers.
func (s *server) answer(limit int64, reply func(context.Context, []byte) (any, string, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start, word := time.Now(), "error"
		defer func() { s.seconds.WithLabelValues(r.URL.Path, word).Observe(time.Since(start).Seconds()) }()
		ctx, cancel := context.WithTimeout(r.Context(), answerWithin)
		defer cancel()
		size := r.ContentLength
		switch {
		case size < 0:
			http.Error(w, "the size of the body must be given", http.StatusLengthRequired)
			return
		case size > limit:
			http.Error(w, fmt.Sprintf("the body is larger than %d bytes", limit), http.StatusRequestEntityTooLarge)
			return
		}
		if err := s.held.Acquire(ctx, size); err != nil {
			http.Error(w, "too many requests at once", http.StatusServiceUnavailable)
			return
		}
		defer s.held.Release(size)
		body, err := io.ReadAll(io.LimitReader(r.Body, limit))
		if err != nil {
			http.Error(w, "read the body: "+err.Error(), http.StatusBadRequest)
			return
		}
		out, said, err := reply(ctx, body)
		var raw []byte
		if err == nil {
			raw, err = json.Marshal(out)
		}
		if err != nil {
			code := http.StatusInternalServerError
			if errors.As(err, &malformed{}) {
				code = http.StatusBadRequest
			}
			s.logger.Warn().Err(err).Str("path", r.URL.Path).Msg("cannot answer the API server")
			http.Error(w, err.Error(), code)
			return
		}
		word = said
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(raw) // the API server has gone away; it asks again
	})
}
