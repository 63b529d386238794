package consumer

const defaultLoginLimit = 10
