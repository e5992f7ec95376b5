'use strict';
// Everything that comes from the node is shown as text, never as markup.
const at = id => document.getElementById(id);
const short = id => id.slice(0, 8);
const number = value => value.toLocaleString('en');
const WINDOW_MS = 300000;
const samples = [];
let latest = null;
let chosen = null;

function make(tag, attributes, ...content) {
  const svg = ['circle', 'line', 'path', 'text', 'title'].includes(tag);
  const made = svg ? document.createElementNS('http://www.w3.org/2000/svg', tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) made.setAttribute(name, value);
  made.append(...content.map(part => part instanceof Node ? part : String(part)));
  return made;
}

function bytes(value) {
  const units = ['B', 'KB', 'MB', 'GB', 'TB'];
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) { value /= 1000; unit++; }
  return `${value.toLocaleString('en', { maximumFractionDigits: unit ? 1 : 0 })} ${units[unit]}`;
}

function time(us) {
  if (us === null || us === undefined) return '–';
  if (us < 1000) return `${Math.round(us)} µs`;
  if (us < 1e6) return `${(us / 1000).toFixed(us < 10000 ? 2 : 1)} ms`;
  if (us < 6e7) return `${(us / 1e6).toFixed(1)} s`;
  const minutes = Math.floor(us / 6e7);
  return minutes < 120 ? `${minutes} min` : `${Math.floor(minutes / 60)} h`;
}

function facts(list, pairs) {
  list.replaceChildren(...pairs.flatMap(([name, value, kind]) =>
    [make('div', {}, make('dt', {}, name), make('dd', kind ? { class: kind } : {}, value))]));
}

function table(into, heads, rows) {
  if (!rows.length) { into.replaceChildren(); return; }
  const head = make('tr', {}, ...heads.map(name => make('th', { scope: 'col' }, name)));
  const body = rows.map(cells => make('tr', {}, ...cells.map(cell =>
    Array.isArray(cell) ? make('td', { class: cell[1] }, cell[0]) : make('td', {}, cell))));
  into.replaceChildren(make('thead', {}, head), make('tbody', {}, ...body));
}

function role(member) {
  const parts = [member.coordinates ? 'coordinator' : member.votes ? 'voter' : 'member'];
  if (member.this_node) parts.push('this node');
  return parts.join(', ');
}

function health(member) {
  if (member.this_node) return ['alive', 'good'];
  if (!member.linked) return ['no link', 'bad'];
  return member.alive ? ['alive', 'good'] : ['silent', 'bad'];
}

function ring(group) {
  const members = group.members, many = members.length > 16;
  const [x, y, wide, high] = [150, 110, many ? 118 : 100, many ? 95 : 75];
  const place = rank => {
    const angle = 2 * Math.PI * rank / members.length - Math.PI / 2;
    return [x + wide * Math.cos(angle), y + high * Math.sin(angle)];
  };
  const drawn = [];
  members.forEach((member, rank) => {
    const [[fromX, fromY], [toX, toY]] = [place(rank), place((rank + 1) % members.length)];
    drawn.push(make('line', { class: 'edge', x1: fromX, y1: fromY, x2: toX, y2: toY }));
  });
  members.forEach((member, rank) => {
    const [cx, cy] = place(rank), r = many ? 5 : 10;
    if (member.coordinates) drawn.push(make('circle', { class: 'crown', cx, cy, r: r + 4 }));
    const kind = `place${member.this_node ? ' own' : ''}${member.alive ? '' : ' lost'}`;
    const words = `${member.node}: ${role(member)}, ${health(member)[0]}`;
    drawn.push(make('circle', { class: kind, cx, cy, r }, make('title', {}, words)));
    if (!many) {
      drawn.push(make('text', { x: cx, y: cy + (cy < y ? -17 : 26), 'text-anchor': 'middle' }, short(member.node)));
    }
  });
  at('ring').replaceChildren(...drawn);
}

/* The values of the last minutes for the chosen group: [time, value]. */
function series(value) {
  const found = [];
  let before = null;
  for (const sample of samples) {
    const now = sample.groups[chosen];
    if (now && before && sample.at > before.at) {
      const result = value(before, now, (sample.at - before.at) / 1000);
      if (result !== null && result >= 0) found.push([sample.at, result]);
    }
    if (now) before = { ...now, at: sample.at };
  }
  return found;
}

function chart(svg, shown, points, words) {
  const end = samples.length ? samples[samples.length - 1].at : 0;
  const most = Math.max(...points.map(point => point[1]), 1e-9);
  const place = ([when, value]) =>
    [300 - (end - when) * 300 / WINDOW_MS, 76 - value / most * 60].map(part => part.toFixed(1)).join(' ');
  const drawn = [make('line', { class: 'axis', x1: 0, y1: 76, x2: 300, y2: 76 }),
    make('text', { x: 0, y: 87 }, '5 min ago'), make('text', { x: 300, y: 87, 'text-anchor': 'end' }, 'now')];
  let last = 'nothing yet';
  if (points.length) {
    last = words(points[points.length - 1][1]);
    drawn.push(make('text', { x: 0, y: 10 }, `highest ${words(most)}`));
    drawn.push(make('path', { class: 'curve', d: 'M' + points.map(place).join(' L') }));
  }
  svg.replaceChildren(...drawn);
  svg.setAttribute('aria-label', `${at(svg.id + '-title').textContent}: ${last}`);
  shown.textContent = last;
}

function views(group) {
  const names = nodes => nodes.map(short).join(', ');
  const reasons = { silent: 'did not answer', blamed: 'was down or held up others', left: 'left', suspended: 'stopped and will return', unknown: 'removed' };
  table(at('views'), ['View', 'Since', 'From index', 'Members', 'Change'], group.views.slice().reverse().map(view => {
    const removed = view.removed.map(entry => `${short(entry.node)} ${reasons[entry.reason] || entry.reason}`);
    const joined = view.joined.length ? [`${names(view.joined)} joined`] : [];
    return [view.id, new Date(view.at_ms).toLocaleTimeString(), number(view.first_index), view.members.length,
      [[...removed, ...joined].join('; ') || 'same members', 'words']];
  }));
}

function waits(group) {
  const waiting = group.waits_for;
  at('waits').textContent = waiting ? waiting.text : group.pending_slots ? 'Own messages wait for confirmations.' : 'Nothing waits.';
  table(at('pending'), ['First message', 'Messages', 'For', 'Waits for'], group.pending.map(slot =>
    [number(slot.first_seq), slot.count, time(slot.age_ms * 1000), [slot.waits_for.map(short).join(', ') || 'its turn', 'id']]));
}

function show(group) {
  at('of-group').hidden = !group;
  if (!group) return;
  at('group-title').textContent = `Group ${group.name}`;
  facts(at('facts'), [
    ['Role', group.role + (group.ready ? '' : ', not ready'), group.ready ? 'good' : 'bad'], ['Index', number(group.index)],
    ['This node lacks', number(group.lag)], ['View', group.view ? group.view.id : 'none'], ['Members', group.members.length],
    ['Voters in reach', `${group.voters_in_reach} of ${group.voters.length}`],
    ['Coordinator', group.coordinator ? short(group.coordinator) : `silent for ${time((group.coordinator_silent_ms || 0) * 1000)}`, 'id'],
    ['Phase', group.phase], ['Durability', group.durability], ['Outbox', `${number(group.outbox_messages)}, ${bytes(group.outbox_bytes)}`],
    ['Window', bytes(group.window_bytes)], ['Checkpoint', `${number(group.checkpoint_index)} ${short(group.checkpoint_digest)}`, 'id'],
  ]);
  chart(at('rate'), at('rate-now'), series((a, b, seconds) => (b.index - a.index) / seconds), value => `${number(Math.round(value))} /s`);
  chart(at('latency'), at('latency-now'),
    series((a, b) => b.latencies > a.latencies ? (b.latency_seconds - a.latency_seconds) / (b.latencies - a.latencies) * 1e6 : null), time);
  ring(group);
  waits(group);
  table(at('members'), ['Rank', 'Node', 'Role', 'Health', 'Index', 'Lacks', 'Round trip', 'Confirms after', 'Address'],
    group.members.map(member => [member.rank, [short(member.node), 'id'], role(member), health(member), number(member.index),
      number(member.lag), time(member.round_trip_us), time(member.confirmation_us), [member.advertised, ...member.addresses].filter(Boolean).join(', ')]));
  views(group);
}

function disk(status) {
  const state = status.disk;
  if (!state) {
    at('disk').textContent = 'No data directory: results are in memory.';
    at('syncs').replaceChildren();
    return;
  }
  at('disk').textContent = state.error || `Works. ${bytes(state.backlog_bytes)} wait for it.`;
  const bounds = state.syncs.bounds_seconds;
  table(at('syncs'), ['Sync takes', 'Times'], state.syncs.counts.map((count, bucket) => [count, bucket]).filter(([count]) => count)
    .map(([count, bucket]) => [bucket < bounds.length ? `up to ${time(bounds[bucket] * 1e6)}` : 'longer', number(count)]));
}

function choose(groups) {
  if (!groups.some(group => group.id === chosen)) chosen = groups.length ? groups[0].id : null;
  const select = at('group');
  const names = JSON.stringify(groups.map(group => [group.id, group.name]));
  if (select.dataset.names !== names) {
    select.dataset.names = names;
    select.replaceChildren(...groups.map(group => make('option', { value: group.id }, group.name)));
  }
  select.value = chosen;
  at('choose').hidden = groups.length < 2;
}

function render() {
  const status = latest;
  at('node').textContent = short(status.node);
  at('ready').textContent = status.ready ? 'ready' : 'not ready';
  at('ready').className = `badge ${status.ready ? 'good' : 'bad'}`;
  document.title = `${status.ready ? '' : 'NOT READY · '}cloudy ${short(status.node)}`;
  at('about').textContent = `listens on ${status.address}, up for ${time(status.uptime_ms * 1000)}, ${status.peers.length} links`;
  at('reasons-box').hidden = status.ready;
  const reasons = status.reasons.join('\n');
  if (at('reasons').dataset.shown !== reasons) {
    at('reasons').dataset.shown = reasons;
    at('reasons').replaceChildren(...status.reasons.map(reason => make('li', {}, reason)));
  }
  choose(status.groups);
  show(status.groups.find(group => group.id === chosen));
  disk(status);
  facts(at('keys'), [['Cluster key', status.keys.fingerprint || 'another public key infrastructure', 'id'],
    ['Also accepted', status.keys.accepted || 'none', 'id'], ['Version', status.version], ['Wire format', status.wire_version],
    ['Disk format', status.disk_format], ['Node', status.node, 'id']]);
  at('ended-box').hidden = !status.ended.length;
  table(at('ended'), ['Group', 'When', 'Reason'], status.ended.slice().reverse().map(group =>
    [group.name, new Date(group.at_ms).toLocaleTimeString(), [group.reason, group.failed ? 'words bad' : 'words']]));
}

function keep(sample) {
  if (samples.length && sample.at <= samples[samples.length - 1].at) return;
  samples.push(sample);
  while (samples[0].at < sample.at - WINDOW_MS) samples.shift();
}

at('group').addEventListener('change', event => { chosen = event.target.value; render(); });
const events = new EventSource('events');
events.addEventListener('history', event => JSON.parse(event.data).forEach(keep));
events.addEventListener('status', event => {
  latest = JSON.parse(event.data);
  const groups = {};
  for (const group of latest.groups) {
    const counts = group.receipt_latency.counts.reduce((sum, count) => sum + count, 0);
    groups[group.id] = { index: group.index, latencies: counts, latency_seconds: group.receipt_latency.sum_seconds };
  }
  keep({ at: latest.at_ms, groups });
  at('link').textContent = 'live';
  render();
});
events.addEventListener('trouble', event => { at('link').textContent = JSON.parse(event.data); });
events.onerror = () => { at('link').textContent = 'the node does not answer; this page shows its last state and connects again'; };
