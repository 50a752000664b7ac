// Command rollout-events follows the rollout events of all clusters on a NATS server, in order and without gaps: started
// again under the same name it goes on where it ended, however long that was ago.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"os/signal"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: rollout-events NATS-URL NAME")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := follow(ctx, os.Args[1], os.Args[2]); err != nil {
		log.Fatal(err)
	}
}

func follow(ctx context.Context, url, name string) error {
	connection, err := nats.Connect(url)
	if err != nil {
		return err
	}
	defer connection.Close()
	stream, err := jetstream.New(connection)
	if err != nil {
		return err
	}
	// The position of a durable consumer lives in the log. One event at a time keeps the order, also when one comes again.
	consumer, err := stream.CreateOrUpdateConsumer(ctx, "SHIPLOG", jetstream.ConsumerConfig{
		Durable: name, FilterSubject: "shiplog.*.event.>", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: 1,
	})
	if err != nil {
		return err
	}
	messages, err := consumer.Messages()
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, messages.Stop)()
	for {
		message, err := messages.Next()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		var event struct {
			ID, Type, Subject, Cause string
			Data                     struct{ Message string }
		}
		if err := json.Unmarshal(message.Data(), &event); err != nil {
			return fmt.Errorf("%s: %w", message.Subject(), err)
		}
		fmt.Printf("%s\t%s\t%s\t%s\n", event.ID, event.Type, event.Subject, event.Data.Message)
		if err := message.Ack(); err != nil {
			return err
		}
	}
}
