package applications

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// rabbitmqClients work with queues that begin with the application's name, and with the exchange
// amq.topic.
var rabbitmqClients = []client{{name: "amqp091", anywhere: true, work: amqp091}}

func (c Config) amqp(v Value) (*amqp.Connection, error) {
	secure, err := c.tls()
	if err != nil {
		return nil, err
	}
	scheme := "amqp://"
	if secure != nil {
		scheme = "amqps://"
	}
	return amqp.DialConfig(scheme+c.Address, amqp.Config{
		SASL:            []amqp.Authentication{&amqp.PlainAuth{Username: v.AccountName, Password: v.AccountPassword}},
		Vhost:           c.Database,
		TLSClientConfig: secure,
		Dial: func(network, address string) (net.Conn, error) {
			conn, err := c.dialer().Dial(network, address)
			if err == nil {
				err = conn.SetDeadline(time.Now().Add(loginTimeout)) // the library lifts it
			}
			return conn, err
		},
	})
}

// opened opens a connection. The broker counts a closed one for a moment, so a limit is asked
// again.
func (c Config) opened(v Value) (conn *amqp.Connection, err error) {
	for range 20 {
		if conn, err = c.amqp(v); err == nil || !strings.Contains(err.Error(), "limit") {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	return conn, err
}

func amqp091(ctx context.Context, c Config, v Value) (Outcome, error) {
	conn, err := c.opened(v)
	if answer, ok := errors.AsType[*amqp.Error](err); ok {
		return Outcome{Login: fmt.Sprint(answer.Code)}, nil
	}
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	out := Outcome{Login: In}
	for name, work := range rabbitmqProbes(ctx, c) {
		channel, err := conn.Channel()
		if err != nil {
			return nil, err
		}
		closed := channel.NotifyClose(make(chan *amqp.Error, 1))
		out[name] = "done"
		if work(channel) == nil { // publishing is not answered, so a call that is answered follows
			_ = channel.ExchangeDeclarePassive("amq.topic", "topic", true, false, false, false, nil)
		}
		_ = channel.Close()
		if answer := <-closed; answer != nil {
			out[name] = fmt.Sprint(answer.Code)
		}
	}
	return out, nil
}

func rabbitmqProbes(ctx context.Context, c Config) map[string]func(*amqp.Channel) error {
	declare := func(queue string) func(*amqp.Channel) error {
		return func(channel *amqp.Channel) error {
			_, err := channel.QueueDeclare(queue, false, true, false, false, nil)
			return err
		}
	}
	return map[string]func(*amqp.Channel) error{
		"declares a queue":           declare(c.Name + "-queue"),
		"declares a queue of others": declare("others-" + c.Name),
		"publishes": func(channel *amqp.Channel) error {
			message := amqp.Publishing{Body: []byte("x")}
			return channel.PublishWithContext(ctx, "amq.topic", c.Name+".news", false, false, message)
		},
	}
}

func openRabbitMQ(_ context.Context, c Config, v Value) (func() error, error) {
	conn, err := c.opened(v)
	if answer, ok := errors.AsType[*amqp.Error](err); ok && answer.Code == amqp.AccessRefused {
		return nil, ErrRejected
	}
	if err != nil {
		return nil, err
	}
	return conn.Close, nil
}
