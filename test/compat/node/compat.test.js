// Plays ../testdata/scenario.json, the same steps as the Go tests, through the official Node clients. TestNode starts a
// server for each client and passes its address and credentials in the environment.
'use strict';

const assert = require('node:assert/strict');
const { readFileSync } = require('node:fs');
const path = require('node:path');
const { test } = require('node:test');

const kms = require('@alicloud/kms20160120');
const $OpenApi = require('@alicloud/openapi-client');
const $OpenApiUtil = require('@alicloud/openapi-util').default;
const Pop = require('@alicloud/pop-core');
const $Rpc = require('@alicloud/rpc-client');
const $tea = require('@alicloud/tea-typescript');
const $Util = require('@alicloud/tea-util');

const env = (name) => {
  const v = process.env['KEYTURN_' + name];
  assert.ok(v, `KEYTURN_${name} is not set; run go test ./test/compat -run TestNode`);
  return v;
};

const endpoint = env('ENDPOINT');
const region = env('REGION');
const kmsVersion = '2016-01-20';
const stsVersion = '2015-04-01';
const versionOf = (op) => (op === 'GetCallerIdentity' ? stsVersion : kmsVersion);
const credentials = {
  '': [env('ACCESS_KEY_ID'), env('ACCESS_KEY_SECRET')],
  'wrong secret': [env('ACCESS_KEY_ID'), 'wrongsecret'],
  'unknown key': ['unknownid', env('ACCESS_KEY_SECRET')],
};

// A refusal is { refused: { status, code, message, requestId, hostId } }, a success { out }.
const refused = (status, body) => {
  assert.ok(body && typeof body === 'object', 'an error has a body');
  return { refused: { status, code: body.Code, message: body.Message, requestId: body.RequestId, hostId: body.HostId } };
};

const text = (v) => (typeof v === 'string' ? v : typeof v === 'object' ? JSON.stringify(v) : String(v));

// flattened are parameters as they travel: the lists of the newer tag calls one by one, the rest as text.
function flattened(input) {
  const flat = {};
  for (const [name, v] of Object.entries(input)) {
    if (!['ResourceId', 'Tag', 'TagKey'].includes(name)) {
      flat[name] = text(v);
      continue;
    }
    v.forEach((item, i) => {
      if (typeof item === 'string') flat[`${name}.${i + 1}`] = item;
      else for (const [member, value] of Object.entries(item)) flat[`${name}.${i + 1}.${member}`] = text(value);
    });
  }
  return flat;
}

// generic is the client that every newer SDK for TypeScript is made of. It signs with version 3.
function generic([accessKeyId, accessKeySecret]) {
  const client = new $OpenApi.default(new $OpenApi.Config({ accessKeyId, accessKeySecret, endpoint, regionId: region }));
  return async (op, input) => {
    const params = new $OpenApi.Params({
      action: op, version: versionOf(op), protocol: 'HTTPS', pathname: '/', method: 'POST', authType: 'AK', style: 'RPC',
      reqBodyType: 'formData', bodyType: 'json',
    });
    const request = new $OpenApi.OpenApiRequest({ query: $OpenApiUtil.query(flattened(input)) });
    try {
      return { out: (await client.callApi(params, request, new $Util.RuntimeOptions({}))).body };
    } catch (e) {
      if (!e.data || !e.data.statusCode) throw e;
      assert.equal(e.code, e.data.Code, 'the SDK shows the code of the answer');
      return refused(e.data.statusCode, e.data);
    }
  };
}

// What @alicloud/kms20160120 1.2.0 is too old for: operations, and parameters of operations that it has.
const lackedOps = [
  'DescribeAccountKmsStatus', 'GetCallerIdentity', 'GetSecretPolicy', 'ListTagResources', 'RotateSecret',
  'SetSecretPolicy', 'TagResources', 'UntagResources', 'UpdateSecretRotationPolicy',
];
const lackedParams = [
  'CreateSecret DKMSInstanceId', 'CreateSecret EnableAutomaticRotation', 'CreateSecret ExtendedConfig',
  'CreateSecret RotationInterval', 'CreateSecret SecretType', 'GetSecretValue DryRun',
  'GetSecretValue FetchExtendedConfig', 'ListSecrets Filters', 'UpdateSecret ExtendedConfig.CustomData',
];

// Members of answers that it does not show.
const lackedMembers = [
  'CreateSecret.SecretType', 'DescribeSecret.AutomaticRotation', 'DescribeSecret.ExtendedConfig',
  'DescribeSecret.NextRotationDate', 'DescribeSecret.RotationInterval', 'DescribeSecret.SecretType',
  'GetSecretValue.SecretType', 'ListSecrets.SecretList.Secret[].SecretType',
];

const methodOf = (op) => op[0].toLowerCase() + op.slice(1);
const hasOp = (op) => typeof kms.default.prototype[methodOf(op)] === 'function';
const requestOf = (op) => kms[op + 'Request']; // none for operations without parameters
const fieldOf = (op, name) => {
  const names = requestOf(op) ? requestOf(op).names() : {};
  return Object.keys(names).find((k) => names[k] === name);
};

// typed is @alicloud/kms20160120. It signs with version 1 and has everything in the query. What it lacks goes through
// the generic client, and is counted apart.
function typed(c) {
  const [accessKeyId, accessKeySecret] = c;
  const client = new kms.default(new $Rpc.Config({ accessKeyId, accessKeySecret, endpoint, regionId: region }));
  const fallback = generic(c);
  return async (op, input, count) => {
    if (!hasOp(op) || Object.keys(input).some((name) => !fieldOf(op, name))) {
      count.fallback++;
      return fallback(op, input);
    }
    const fields = {};
    for (const [name, v] of Object.entries(input)) {
      const field = fieldOf(op, name);
      fields[field] = requestOf(op).types()[field] === 'string' ? text(v) : v;
    }
    try {
      const Request = requestOf(op);
      return { shape: kms[op + 'Response'], out: $tea.toMap(Request ? await client[methodOf(op)](new Request(fields)) : await client[methodOf(op)]()) };
    } catch (e) {
      if (!e.data || !e.data.HttpStatus) throw e;
      assert.equal(e.code, e.data.Code + 'Error', 'the SDK shows the code of the answer, with Error after it');
      return refused(e.data.HttpStatus, e.data);
    }
  };
}

// pop is @alicloud/pop-core, the oldest client. It signs with version 1; with GET everything is in the query, with POST
// everything is in the form.
function pop(method) {
  return ([accessKeyId, accessKeySecret]) => {
    const clients = {};
    for (const apiVersion of [kmsVersion, stsVersion]) {
      clients[apiVersion] = new Pop({ accessKeyId, accessKeySecret, endpoint: 'https://' + endpoint, apiVersion });
    }
    return async (op, input) => {
      try {
        const used = op === 'SetSecretPolicy' ? 'POST' : method; // which takes POST alone
        return { out: await clients[versionOf(op)].request(op, flattened(input), { method: used, timeout: 30000 }) };
      } catch (e) {
        if (!e.data) throw e;
        assert.equal(e.code, e.data.Code, 'the SDK shows the code of the answer');
        return refused(e.data.HttpStatus, e.data);
      }
    };
  };
}

const clients = { 'kms20160120': typed, 'openapi-client': generic, 'pop-core GET': pop('GET'), 'pop-core POST': pop('POST') };

// shown is the part of a wanted answer that a typed client has members for. The others are noted by their paths.
function shown(want, type, at, lacked) {
  if (Array.isArray(want)) return want.map((w) => shown(w, type && type.itemType, at + '[]', lacked));
  if (!type || !type.names || !want || typeof want !== 'object') return want;
  const names = type.names();
  const out = {};
  for (const [name, v] of Object.entries(want)) {
    const field = Object.keys(names).find((k) => names[k] === name);
    if (field) out[name] = shown(v, type.types()[field], `${at}.${name}`, lacked);
    else lacked.add(`${at}.${name}`);
  }
  return out;
}

function scenario() {
  const now = Date.parse(env('NOW'));
  const at = (days) => new Date(now + days * 86400e3).toISOString().replace('.000Z', 'Z');
  const full = awkward(30720);
  const fill = {
    '${NOW}': at(0), '${NOW+7d}': at(7), '${NOW+30d}': at(30), '${ACCOUNT}': env('ACCOUNT'), '${ROBOT_KEY}': env('ROBOT_KEY'), '${ROBOT_SECRET}': env('ROBOT_SECRET'), '${REGION}': region,
    '${30KB}': full, '${30KB+1}': full + 'x',
  };
  const filled = (v) => {
    if (typeof v === 'string') return Object.entries(fill).reduce((s, [k, to]) => s.split(k).join(to), v);
    if (Array.isArray(v)) return v.map(filled);
    if (v && typeof v === 'object') return Object.fromEntries(Object.entries(v).map(([k, x]) => [k, filled(x)]));
    return v;
  };
  const steps = JSON.parse(readFileSync(path.join(__dirname, '..', 'testdata', 'scenario.json'), 'utf8'));
  return steps.map((s) => ({ ...s, in: filled(s.in), out: filled(s.out) }));
}

// awkward is text of n bytes that every encoding on its way must treat with care.
function awkward(n) {
  const unit = 'é~*+ /%"中&=?#\n\t\\\'<>';
  const size = Buffer.byteLength(unit);
  return unit.repeat(Math.floor(n / size)) + 'x'.repeat(n % size);
}

const empty = (v) => v === undefined || v === null || v === ''
  || (typeof v === 'object' && Object.values(v).every(empty));

// same compares two values and counts what it compared. Absent is as good as empty: typed clients do not tell them apart.
function same(at, want, got, count) {
  if (Array.isArray(want)) {
    count.values++;
    assert.equal((got || []).length, want.length, `${at}: number of items`);
    want.forEach((w, i) => same(`${at}[${i}]`, w, got[i], count));
  } else if (want && typeof want === 'object') {
    for (const k of Object.keys(want)) same(`${at}.${k}`, want[k], (got || {})[k], count);
    for (const k of Object.keys(got || {})) assert.ok(k in want || empty(got[k]), `${at}.${k}: there; want none`);
  } else {
    count.values++;
    const pattern = /^\$\{MATCH:(.*)\}$/s.exec(want);
    if (pattern) assert.match(got, new RegExp(pattern[1]), at);
    else if (!(empty(want) && empty(got))) assert.equal(got, want, at);
  }
}

const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

const name = env('CLIENT');
const steps = scenario();

test(`${name} plays the scenario`, async (t) => {
  const callers = Object.fromEntries(Object.entries(credentials).map(([as, c]) => [as, clients[name](c)]));
  const lacked = new Set();
  const count = { calls: 0, fallback: 0, values: 0 };
  for (const [i, s] of steps.entries()) {
    const at = `step ${i + 1}, ${s.op}`;
    await t.test(at, async () => {
      const { out, shape, refused: r } = await callers[s.as || ''](s.op, s.in, count);
      count.calls++;
      if (s.error) {
        assert.ok(r, 'done; want it refused');
        assert.deepEqual([r.status, r.code, r.hostId], [s.error.status, s.error.code, endpoint]);
        assert.equal(r.message.slice(0, s.error.message.length), s.error.message);
        assert.match(r.requestId, uuid);
        count.values += 5;
        return;
      }
      assert.ok(!r, `refused with ${r && r.status} ${r && r.code} ${r && r.message}`);
      const { RequestId, ...rest } = out;
      assert.match(RequestId, uuid);
      count.values++;
      same(at, shape ? shown(s.out, shape, s.op, lacked) : s.out, rest, count);
    });
  }
  if (name === 'kms20160120') assert.deepEqual([...lacked].sort(), lackedMembers);
  const ops = new Set(steps.map((s) => s.op)).size;
  console.log(`FIGURES ${name}: ${ops} operations, ${count.calls} calls, ${count.fallback} of them through openapi-client, ${count.values} values compared`);
});

test('kms20160120 lacks what is listed, and nothing else', () => {
  const ops = [...new Set(steps.map((s) => s.op))].filter((op) => !hasOp(op)).sort();
  assert.deepEqual(ops, lackedOps);
  const params = new Set();
  for (const s of steps.filter((x) => hasOp(x.op))) {
    for (const p of Object.keys(s.in)) if (!fieldOf(s.op, p)) params.add(`${s.op} ${p}`);
  }
  assert.deepEqual([...params].sort(), lackedParams);
});
