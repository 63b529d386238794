package consumer

const childVariable = "KEYTURN_CONSUMER_CHILD"

func child() int { return 0 }
