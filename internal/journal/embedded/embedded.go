// Package embedded is a NATS server in the process that keeps the log, alone on its directory. It is all that this project links of
// nats-server, and apart from package journal so that who only reaches a log does without. It knows nothing of what is in the log.
package embedded

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"
	"github.com/rs/zerolog"
	"golang.org/x/crypto/bcrypt"
)

// ErrInUse: another process holds the directory.
var ErrInUse = errors.New("another process uses this directory")

// MaxPayload is the largest message in bytes: twice the largest object Kubernetes stores.
const MaxPayload = 4 << 20

const (
	startWait = 10 * time.Second
	// identifyWait is how long a client waits to be let in: a second more than a log takes to say who it is.
	identifyWait = 6 * time.Second
	// storeLimit is no limit. Left to itself the server takes three quarters of what is free when it starts for ever after: too little
	// for the log on a small disk, and nothing on a full one.
	storeLimit = 1 << 60
	// examineEvery is how often the server is asked whether it can still write, and roomToWrite how much room, in bytes, the disk must
	// have before a server that could not is started anew.
	examineEvery = 2 * time.Second
	roomToWrite  = 16 << 20
	// user is everybody but the agents.
	user = "shiplog"
)

// Server is a NATS server in this process. One that failed to write, as it does on a full disk, never writes again: another one
// takes its place when there is room, and clients come back to that. The exported fields are set before Start.
type Server struct {
	// Directory where everything is kept.
	Directory string
	// Listen is the address "host:port" at which other processes reach it; empty: none does.
	Listen string
	// StoreLimit is how many bytes everything that it stores may take; 0: what the disk gives.
	StoreLimit int64

	options server.Options
	shared  []share
	log     Log
	lock    *fileLock
	// token is the password of user. Whoever learns it may do all that we may.
	token string
	// issuer signs what the server is told of agents.
	issuer nkeys.KeyPair
	// listens is the address for other clients; empty: there is none.
	listens string
	// forget removes the copy that it works on, if it does.
	forget func()

	mu      sync.Mutex
	current *server.Server // nil between two
	ended   chan struct{}
	end     func() // closes ended, once
	examine sync.WaitGroup
}

// share is a subject of the log's account that an account may ask, where it is known by another name.
type share struct {
	account, subject, as string
	many                 bool
}

// Share lets an account ask at a subject, which it knows as another; many says that a question has several answers. It holds
// from the next Start on.
func (e *Server) Share(account, subject, as string, many bool) {
	if one := (share{account, subject, as, many}); !slices.Contains(e.shared, one) {
		e.shared = append(e.shared, one)
	}
}

// Start starts the server. If it is strict it syncs every message to the disk before it acknowledges it. As is: it works on a copy
// of the directory, in which no limit applies and nothing falls due, and which goes when it stops. refused is told when a client
// tries what it may not ("publish", "subscribe"), and may be nil. Errors: ErrInUse, and that the directory or the address cannot be used.
func (e *Server) Start(strict, asIs bool, log zerolog.Logger, refused func(what string)) (err error) {
	fail := func(err error) error { return fmt.Errorf("start the log's server in %s: %w", e.Directory, err) }
	directory := e.Directory
	e.forget = func() {}
	if asIs {
		if directory, e.forget, err = scratchCopy(directory); err != nil {
			return err
		}
	}
	so := server.Options{
		ServerName:         "shiplog",
		JetStream:          true,
		StoreDir:           directory,
		JetStreamMaxMemory: -1,
		JetStreamMaxStore:  storeLimit,
		SyncAlways:         strict,
		MaxPayload:         MaxPayload,
		DontListen:         true,
		NoSigs:             true,
		NoSystemAccount:    false,
	}
	if e.StoreLimit > 0 {
		so.JetStreamMaxStore = e.StoreLimit
	}
	if e.Listen != "" {
		host, port, err := net.SplitHostPort(e.Listen)
		if err != nil {
			return fail(err)
		}
		so.DontListen = false
		so.Host = host
		if so.Port, err = strconv.Atoi(port); err != nil {
			return fail(fmt.Errorf("port of %q: %w", e.Listen, err))
		}
		if so.Port == 0 {
			so.Port = server.RANDOM_PORT
		}
	}
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return fail(err)
	}
	if e.lock, err = lockFile(filepath.Join(directory, lockName)); err != nil {
		return fail(err)
	}
	e.log = Log{log.With().Str("part", "nats").Logger(), refused}
	e.ended = make(chan struct{})
	e.end = sync.OnceFunc(func() { close(e.ended) })
	if err := e.guard(&so); err != nil {
		e.lock.Close()
		return fail(err)
	}
	e.options = so
	if err := e.start(); err != nil {
		e.lock.Close()
		return fail(err)
	}
	if address, is := e.current.Addr().(*net.TCPAddr); is {
		e.listens, e.options.Port = address.String(), address.Port // clients come back to the same one
	}
	e.examine.Go(e.examineAlways)
	return nil
}

// start starts a server.
func (e *Server) start() error {
	options := e.options // the server changes what it is given
	s, err := server.NewServer(&options)
	if err != nil {
		return err
	}
	s.SetLoggerV2(e.log, e.log.GetLevel() <= zerolog.DebugLevel, false, false)
	s.Start()
	err = fmt.Errorf("it was not ready after %s", startWait)
	if s.ReadyForConnections(startWait) && s.JetStreamEnabled() {
		err = e.letIn(s)
	}
	if err != nil {
		s.Shutdown()
		s.WaitForShutdown()
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.current = s
	return nil
}

// now returns the server; nil: there is none at the moment.
func (e *Server) now() *server.Server {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.current
}

// InProcessConn connects to whatever server there is.
func (e *Server) InProcessConn() (net.Conn, error) {
	if s := e.now(); s != nil {
		return s.InProcessConn()
	}
	return nil, errors.New("the log's server is being started anew")
}

// examineAlways puts another server in the place of one that cannot write any more, until stop.
func (e *Server) examineAlways() {
	ticker := time.NewTicker(examineEvery)
	defer ticker.Stop()
	said := false
	for {
		select {
		case <-e.ended:
			return
		case <-ticker.C:
		}
		s := e.now()
		if s != nil {
			why := cannotWrite(s)
			if why == "" {
				said = false
				continue
			}
			if !said {
				e.log.Error().Str("error", why).Str("directory", e.options.StoreDir).
					Msg("the log cannot write and takes nothing; it goes on when the disk has room")
				said = true
			}
			if room(e.options.StoreDir) < roomToWrite {
				continue
			}
			e.retire()
		}
		if err := e.start(); err != nil {
			e.log.Error().Err(err).Msg("cannot start the log's server anew; trying again")
			continue
		}
		e.log.Info().Msg("the log's server was started anew")
	}
}

// cannotWrite says why a server's streams take nothing any more; empty: they do.
func cannotWrite(s *server.Server) string {
	for _, one := range s.Healthz(&server.HealthzOptions{Details: true}).Errors {
		if one.Type == server.HealthzErrorStream {
			return one.Error
		}
	}
	return ""
}

// room is how many bytes the disk under a directory has left.
func room(directory string) uint64 {
	var disk syscall.Statfs_t
	if err := syscall.Statfs(directory, &disk); err != nil {
		return 0
	}
	return disk.Bavail * uint64(disk.Bsize)
}

// retire ends the server.
func (e *Server) retire() {
	e.mu.Lock()
	s := e.current
	e.current = nil
	e.mu.Unlock()
	if s != nil {
		s.Shutdown()
		s.WaitForShutdown()
	}
}

// guard has the server let in who knows the token; of everybody else it asks, by a callout, who that is.
func (e *Server) guard(so *server.Options) (err error) {
	if e.token, err = clientToken(filepath.Join(so.StoreDir, "token")); err != nil {
		return err
	}
	if e.issuer, err = nkeys.CreateAccount(); err != nil {
		return err
	}
	issuer, err := e.issuer.PublicKey()
	if err != nil {
		return err
	}
	// The server wants no plain passwords. The token is random and 128 bits long: the cheapest hash will do.
	hash, err := bcrypt.GenerateFromPassword([]byte(e.token), bcrypt.MinCost)
	if err != nil {
		return fmt.Errorf("hash the token for clients: %w", err)
	}
	so.Username, so.Password = user, string(hash)
	so.AuthCallout = &server.AuthCallout{Issuer: issuer, Account: server.DEFAULT_GLOBAL_ACCOUNT, AuthUsers: []string{user}}
	so.AlwaysEnableNonce = true
	so.AuthTimeout = identifyWait.Seconds()
	return nil
}

// clientToken returns the token kept in a file, made at first use. It stays, so that clients come back after a restart.
func clientToken(path string) (string, error) {
	held, err := os.ReadFile(path)
	if err == nil && len(held) > 0 {
		return string(held), nil
	}
	token := rand.Text()
	if err := os.WriteFile(path, []byte(token), 0o600); err != nil {
		return "", fmt.Errorf("keep the token for clients: %w", err)
	}
	return token, nil
}

// Login is what everybody but the agents shows to be let in.
func (e *Server) Login() (name, password string) { return user, e.token }

// Issuer signs what the server is told of agents.
func (e *Server) Issuer() nkeys.KeyPair { return e.issuer }

// Address is the URL at which others reach the server, what they need to be let in included; empty: they do not.
func (e *Server) Address() string {
	if e.Listen == "" {
		return ""
	}
	return (&url.URL{Scheme: "nats", User: url.UserPassword(user, e.token), Host: e.listens}).String()
}

// Stop ends the server and lets another process have the directory. It may be started again.
func (e *Server) Stop() {
	e.end()
	e.examine.Wait()
	e.retire()
	e.lock.Close()
	e.forget()
}

// letIn makes the accounts that something is shared with.
func (e *Server) letIn(s *server.Server) error {
	for _, one := range e.shared {
		account, _ := s.LookupOrRegisterAccount(one.account)
		response := server.Singleton
		if one.many {
			response = server.Streamed
		}
		if err := s.GlobalAccount().AddServiceExportWithResponse(one.subject, response, []*server.Account{account}); err != nil {
			return fmt.Errorf("export %s: %w", one.subject, err)
		}
		if err := account.AddServiceImport(s.GlobalAccount(), one.as, one.subject); err != nil {
			return fmt.Errorf("import %s: %w", one.subject, err)
		}
	}
	return nil
}

// Log gives a server's lines to zerolog. What the server notices routinely is detail to us.
type Log struct {
	zerolog.Logger
	// Refused is told when a client tries what it may not; may be nil.
	Refused func(what string)
}

func (l Log) Noticef(format string, v ...any) { l.Debug().Msgf(format, v...) }
func (l Log) Warnf(format string, v ...any)   { l.Warn().Msgf(format, v...) }
func (l Log) Errorf(format string, v ...any) {
	line := fmt.Sprintf(format, v...)
	if l.Refused != nil {
		switch {
		case strings.Contains(line, "Publish Violation"):
			l.Refused("publish")
		case strings.Contains(line, "Subscription Violation"):
			l.Refused("subscribe")
		}
	}
	l.Error().Msg(line)
}
func (l Log) Fatalf(format string, v ...any) { l.Error().Msgf(format, v...) }
func (l Log) Debugf(format string, v ...any) { l.Trace().Msgf(format, v...) }
func (l Log) Tracef(format string, v ...any) { l.Trace().Msgf(format, v...) }
