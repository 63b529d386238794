package agent

import "github.com/keyturn/keyturn/consumer"

func (s *setup) lastGood() (*consumer.LastGood, error) { return s.LastGood.open() }

func (l *LastGood) open() (*consumer.LastGood, error) {
	return nil, nil // TO BE WRITTEN when the consumer has it
}
