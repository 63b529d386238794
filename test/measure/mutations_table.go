package main

// mutations break the rules whose copies once drifted apart. Each row names the test that shows the rule.
var mutations = []mutation{}
