package journal

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Codes of the server that nats.go does not name.
const (
	codeNoResources       = 10002 // account
	codeInsufficient      = 10023
	codeNoStorage         = 10047
	codeTooLarge          = 10054
	codeHeaderTooLarge    = 10097
	codeStoreFailed       = 10077
	codeWrongLast         = 10071
	codeWrongLastConstant = 10164 // of replicated streams: refused, or an earlier message is still being agreed on
	codeBatchIncomplete   = 10176
	codeDuplicateInBatch  = 10201
	codeBatchesInflight   = 10210
)

// classify says in the words of the contract what an error of an append means. Everything the server does not say no to
// is ErrUnavailable.
func classify(err error) error {
	var api *jetstream.APIError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, nats.ErrMaxPayload):
		return fmt.Errorf("%w: %w", ErrTooLarge, err)
	case errors.As(err, &api):
		switch api.ErrorCode {
		case codeNoResources, codeInsufficient, codeNoStorage, codeStoreFailed:
			return fmt.Errorf("%w: %w", ErrFull, err)
		case codeTooLarge, codeHeaderTooLarge:
			return fmt.Errorf("%w: %w", ErrTooLarge, err)
		}
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// notStored says that an append which failed with err has certainly stored nothing and may be tried again.
func notStored(err error) bool {
	if errors.As(err, new(unsure)) {
		return false
	}
	var api *jetstream.APIError
	if errors.As(err, &api) {
		switch api.ErrorCode {
		case codeBatchIncomplete, codeBatchesInflight:
			return true
		}
		return api.Code == 503
	}
	return errors.Is(err, nats.ErrNoResponders) || errors.Is(err, nats.ErrReconnectBufExceeded) || errors.Is(err, jetstream.ErrNoStreamResponse)
}

// unavailable wraps the error of a call whose failure says nothing but that the log did not answer, and that of ctx if it ended.
func unavailable(ctx context.Context, doing string, err error) error {
	if ctx.Err() != nil && !errors.Is(err, ctx.Err()) {
		return fmt.Errorf("%s: %w: %w: %w", doing, ErrUnavailable, ctx.Err(), err)
	}
	return fmt.Errorf("%s: %w: %w", doing, ErrUnavailable, err)
}
