import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Template } from './execute.ts';
import { alignTabs } from './tabwriter.ts';
import { StructView } from './values.ts';

const data = {
  Name: 'x',
  State: { Status: 'running', Pid: 3 },
  List: [1, 2],
  Networks: { b: { IP: '1' }, a: { IP: '2' } },
};

function render(source: string): string {
  return new Template(source).execute(data, { missingKey: 'error' });
}

test('actions, pipelines, control structures and functions give what Go gives', () => {
  const cases: [string, string][] = [
    ['{{.Name}}', 'x'],
    ['{{range $k, $v := .Networks}}{{$k}}={{$v.IP}} {{end}}', 'a=2 b=1 '],
    ['{{json .State}}', '{"Status":"running","Pid":3}'],
    ['{{if eq .Name "y" "x"}}yes{{else}}no{{end}}', 'yes'],
    ['{{.Name | printf "%-5s|%q" "a"}}', 'a    |"x"'],
    ['{{index .List 1}}{{len .List}}', '22'],
    ['{{ .Name -}}  y {{- .Name }}', 'xyx'],
    ['{{with .State}}{{.Pid}}{{end}}', '3'],
    ['{{range .List}}{{if eq . 2}}{{break}}{{end}}{{.}}{{end}}', '1'],
    ['{{define "t"}}<{{.}}>{{end}}{{template "t" .Name}}', '<x>'],
    ['{{.State}} {{.List}}', '{running 3} [1 2]'],
    ['{{join (split "a,b" ",") "-"}}{{upper "q"}}{{truncate "hello" 2}}{{pad "p" 1 1}}', 'a-bQhe p '],
    ['{{/* c */}}{{html "<a>"}}{{urlquery "a b"}}', '&lt;a&gt;a+b'],
    ['{{and 1 0}}{{or 0 "z"}}{{not false}}', '0ztrue'],
  ];
  for (const [source, expected] of cases) assert.equal(render(source), expected, source);
});

test('failures carry text/template words and positions', () => {
  const cases: [string, string][] = [
    ['{{.Foo}}', 'template: :1:2: executing "" at <.Foo>: map has no entry for key "Foo"'],
    ['{{.State.Foo}}', 'template: :1:8: executing "" at <.State.Foo>: map has no entry for key "Foo"'],
    ['{{foo}}', 'template: :1: function "foo" not defined'],
    ['{{.Name', 'template: :1: unclosed action'],
    ['{{if .Name}}', 'template: :1: unexpected EOF'],
    ['{{$y}}', 'template: :1: undefined variable "$y"'],
  ];
  for (const [source, message] of cases) assert.throws(() => render(source), { message });
});

test('an unknown field of a formatter row names its type', () => {
  const row = new StructView('*formatter.ContainerContext', { ID: () => 'a' });
  assert.throws(() => new Template('{{.Foo}}').execute(row), {
    message: 'template: :1:2: executing "" at <.Foo>: can\'t evaluate field Foo in type *formatter.ContainerContext',
  });
});

test('tab-separated cells align like text/tabwriter with docker settings', () => {
  assert.equal(
    alignTabs('A\tBBBBBBBBBBBBB\tC\naaa\tb\tc\n'),
    'A         BBBBBBBBBBBBB   C\naaa       b               c\n',
  );
});
