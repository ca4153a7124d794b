/** `gantry` beside the docker CLI on one daemon: the same output, errors and exit codes. */
import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { startDaemon, type TestDaemon } from '../harness/daemon.ts';
import { compareAll, compareInOrder, dockerApiVersion, helpOf, type ParityContext, parityObstacle } from './parity.ts';

const WRONG_COMMAND_LINES = `
foo
container foo
image foo bar
--bogus
-z
ps --bogus
ps -a --last x
run
run --bogus x
run --name
run ''
run BAD
run nosuch/
run -m 1 busybox
run --memory abc busybox
run --restart bogus busybox
run --env-file /nonexistent busybox
run --mount bogus busybox
run --network container: busybox
run --gpus bogus busybox
run --log-opt bogus busybox
run --device bogus: busybox
run --add-host x busybox
run --stop-timeout x busybox
run --health-interval 1 busybox
run --no-healthcheck --health-cmd x busybox
run -d --rm --restart always busybox
run -a bogus busybox
run --pull bogus busybox
run --pull never nosuchimage
run --mac-address bogus busybox true
run --security-opt bogus busybox true
run --security-opt seccomp=/nonexistent busybox
run -v rel/path:/x:bogus busybox
run --mount type=bind,source=/nonexistent,target=/x busybox
run --tmpfs rel busybox true
run --pid bogus busybox
run --memory-swappiness 200 busybox
run --link x:y:z busybox
run --device-read-bps /dev/sda:x busybox
run --restart on-failure:x busybox
run --expose 80:80 busybox
run --volumes-from nosuch busybox true
run --cap-add BOGUS busybox true
run --sysctl a=b busybox
create nosuch!
create --name '!bad' busybox
create --memory 1 busybox
exec -e = nosuch x
cp - nosuch:/x
events --until 1 --since 0 --format '{{.Bogus}}'
inspect nosuch nosuch2
images a b
images --tree -q
images --tree --format x
images -f bogus
images -f bogus=1
images -f dangling=x
images --format '{{.Bogus}}'
images --format '{{'
images --format '{{nofunc .}}'
ps --format '{{.Bogus}}'
ps --format '{{'
ps -f bogus
ps -f bogus=1
ps -f status=bogus
pull BAD
pull -a busybox:x
push BAD
push -a busybox:x
tag a
tag busybox 'BAD:tag'
tag busybox busybox:
login a b
login -u '' x
login --password-stdin x
login -u bob -p x --password-stdin x
login -u bob x
login x
logout a b
logout
logout example.test
inspect
inspect nosuch
inspect --type foo x
inspect --type container nosuch
inspect -f '{{.Bogus}}' busybox
inspect -f '{{.NoSuch.Key}}' busybox
inspect -f '{{' busybox
container inspect nosuch
image inspect nosuch
network inspect nosuch
volume inspect nosuch
network create
network create --gateway 1.2.3.4 nn
network create --subnet 10.9.0.0/24 --gateway 1.2.3.4 nn
network create --ip-range 1.2.3.0/24 nn
network rm nosuch
network connect a
volume create a b
volume create --name x y
volume rm nosuch
volume rm -f nosuch
system df --format '{{.Bogus}}'
info -f '{{.Bogus}}'
version -f '{{'
version -f '{{.Bogus}}'
history nosuch
history --platform bogus/ busybox
image inspect --platform linux/arm64 busybox
save nosuch
save --platform bogus busybox
save -o /nonexistent/x busybox
load -i /nonexistent
load <<< garbage
import /nonexistent
import BAD BAD
export nosuch
export -o /nonexistent/x nosuch
exec
exec a
exec nosuch ls
cp
cp a
cp a b
cp a: b:
cp nosuch:/x /nonexistent/a/b
logs nosuch
attach nosuch
port nosuch
top nosuch
diff nosuch
commit nosuch x
commit nosuch BAD
rename nosuch x
update busybox
update --memory 10m nosuch
wait nosuch
kill nosuch
kill -s BOGUS nosuch
pause nosuch
unpause nosuch
restart nosuch
start nosuch
stop nosuch
rm nosuch
rm -f nosuch
rmi nosuch
rmi -f nosuch
stats --bogus
stats --no-stream nosuch
events --until bogus
events --format '{{' --until 1s
system prune -f --volumes --filter until=1h
build
build --bogus
build nonexistent
build -t BAD .
build -f nosuch .
context inspect nosuch
context use nosuch
context rm nosuch
context rm default
context create default
context create !x
context import y /nonexistent
context update nosuch
-c nosuch ps
-H bogus:// ps
-H x -c y ps
-l bogus ps
-H unix:///nonexistent ps
-H unix:///nonexistent run x
-H unix:///nonexistent images
--tlsverify -H tcp://127.0.0.1:1 ps
help nosuch
`;

const READING = `
version -f '{{.Server.Version}}'
info --format '{{.Driver}} {{.NCPU}} {{json .Plugins}}'
ps
ps -q
images
images -q
images --no-trunc
images --digests
images --format json
images --format raw
images --format 'table {{.Repository}}\t{{.Size}}\t{{.Containers}}'
images --format '{{.VirtualSize}} {{.SharedSize}} {{.UniqueSize}} {{.CreatedAt}}'
images --tree
images nosuch
images -f reference=busybox --format '{{.Repository}}:{{.Tag}} {{.ID}}'
history busybox
history --no-trunc -q busybox
history --human=false --format '{{.Size}} {{.CreatedBy}} {{.CreatedAt}}' busybox
history --format json busybox
history --format 'table {{.ID}}\t{{.Comment}}' busybox
image inspect busybox
image inspect --platform linux/amd64 -f '{{.Os}}' busybox
inspect -f '{{json .Config.Env}} {{len .RootFS.Layers}}' busybox
network ls
network ls --format json
network ls --format '{{.Name}} {{.Driver}} {{.IPv6}} {{.Internal}} {{.Label "x"}}'
network ls -f name=bridge --format 'table {{.ID}}\t{{.Name}}\t{{.CreatedAt}}'
network inspect host none
network inspect -f '{{.Name}} {{json .IPAM.Config}}' bridge
volume ls
system df
system df -v
system df --format json
system df --format '{{.Type}} {{.TotalCount}}'
system df -v --format json
system df -v --format '{{range .Images}}{{.Repository}} {{end}}'
system df -v --format raw
container prune <<< n
image prune -a <<< n
volume prune <<< n
network prune <<< yes
system prune -a --filter label=zzz --filter until=24h <<< n
builder prune -f
plugin ls
context ls
context show
context inspect
inspect --size busybox -f '{{.Id}}'
images --format '{{len .ID}} {{slice .ID 0 3}} {{index .ID 0}}'
network inspect -f '{{range $k, $v := .Options}}{{$k}}={{$v}} {{end}}' bridge
info -f '{{json .Swarm}} {{.CgroupDriver | printf "%s"}}'
`;

const CONTAINER_LIFE = `
create --name p-{} -l a=b -e X=1 --network none busybox sh -c 'echo out; echo err >&2'
inspect p-{}
inspect -f '{{json .Config.Labels}} {{.State.Status}} {{index .Config.Labels "a"}}' p-{}
inspect -s -f '{{.SizeRw}}' p-{}
start -a p-{}
wait p-{}
ps -a --filter name=p-{}
ps -a --filter name=p-{} --no-trunc -q
ps -a --filter name=p-{} -s
ps -a --filter name=p-{} --format json
ps -a --filter name=p-{} --format raw
ps -a --filter name=p-{} --format 'table {{.Names}}\t{{.Image}}\t{{.Label "a"}}\t{{upper .State}}'
ps -a --filter name=p-{} --format '{{join (split .Image "y") "-"}} {{pad .Image 2 3}} {{title .State}} {{truncate .Image 3}}'
ps -a --filter name=p-{} --format '{{printf "%-10s|%5d|%q" .State 3 .Image}} {{if eq .State "exited"}}yes{{else}}no{{end}}'
diff p-{}
port p-{}
port p-{} 80
top p-{}
pause p-{}
kill p-{}
rm p-{}
run --rm --network none busybox sh -c 'exit 5'
run --rm --network none busybox nosuchcmd
run --rm --network none busybox /etc
run -i --rm --network none busybox cat <<< some input
run -it --rm --network none busybox true
run --rm -u nosuch --network none busybox true
run -d --name d-{} --network none busybox sleep 300
exec d-{} sh -c 'echo {} >/mark; echo e; exit 4'
exec d-{} nosuch
exec -it d-{} tty
exec -e A=B d-{} sh -c 'echo $A'
exec -w /nosuch d-{} pwd
update --memory 64m --memory-swap 128m d-{}
update d-{}
rename d-{} d-{}
rename d-{} e-{}
rm e-{}
pause e-{}
pause e-{}
exec e-{} true
unpause e-{}
cp e-{}:/nosuch /tmp
cp /nosuchfile e-{}:/tmp
cp e-{}:/bin/nosuch -
commit -m msg -a me -c 'ENV Q=1' e-{} img-{}:2
image inspect -f '{{.Comment}} {{.Author}} {{.Config.Env}}' img-{}:2
images -f reference=img-{}
history img-{}:2
tag img-{}:2 other-{}:t
rmi img-{}:2 nosuch
rmi other-{}:t
save -o save-{}.tar busybox
load -i save-{}.tar
load -q -i save-{}.tar
export -o exp-{} e-{}
import -m m -c 'CMD ["x"]' exp-{} imp-{}:1
rmi imp-{}:1
volume create --label a=b --name w-{}
volume ls --format '{{.Name}} {{.Labels}} {{.Links}} {{.Label "a"}}' -f name=w-{}
volume inspect -f '{{.Name}}' w-{} nosuch
volume update w-{}
volume rm w-{} nosuch
build -q context
build -t b-{} --no-cache context
build -q -f - context <<< FROM busybox\\n
build --no-cache - <<< FROM busybox\\nENV B={}\\n
rmi -f b-{}
stop -t 0 e-{}
start e-{}
rm -f e-{}
`;

const HELP = `run|create|exec|ps|start|stop|kill|rm|logs|cp|commit|update|attach|wait|port|top|stats|inspect|images|image ls|image rm|image prune|image inspect|image history|save|load|import|tag|pull|push|search|login|logout|events|info|version|network create|network ls|network rm|network connect|volume create|volume ls|volume prune|system df|system prune|context create|context export|context import|context use|builder prune|container|network|context`;

describe('gantry and docker', () => {
  let daemon: TestDaemon;
  let context: ParityContext;
  let obstacle: string | undefined;
  before(async () => {
    obstacle = await parityObstacle();
    if (obstacle !== undefined) return;
    daemon = await startDaemon();
    const version = await dockerApiVersion();
    const cwd = join(daemon.directory, 'work');
    mkdirSync(join(cwd, 'context'), { recursive: true });
    writeFileSync(join(cwd, 'context/Dockerfile'), 'FROM busybox\nENV A=b\n');
    mkdirSync(join(cwd, 'config'));
    context = {
      cwd,
      environment: () => ({
        DOCKER_HOST: daemon.host,
        DOCKER_CONFIG: join(cwd, 'config'),
        DOCKER_API_VERSION: version,
        DOCKER_BUILDKIT: '0',
        DOCKER_CLI_HINTS: 'false',
      }),
    };
  });
  after(async () => daemon?.[Symbol.asyncDispose]());

  test('refuse the same command lines in the same words', async (suite) => {
    if (obstacle !== undefined) return suite.skip(obstacle);
    await compareAll(WRONG_COMMAND_LINES, context);
  });

  test('print the same lists and documents', async (suite) => {
    if (obstacle !== undefined) return suite.skip(obstacle);
    await compareAll(READING, context);
  });

  test('lead containers, images and volumes through the same life', async (suite) => {
    if (obstacle !== undefined) return suite.skip(obstacle);
    await compareInOrder(CONTAINER_LIFE, context);
  });

  test('offer the same flags and commands in their help', async (suite) => {
    if (obstacle !== undefined) return suite.skip(obstacle);
    const differences: string[] = [];
    for (const command of HELP.split('|')) {
      const { docker, gantry } = await helpOf(command, context);
      const missing = docker.filter((item) => !gantry.includes(item));
      if (missing.length > 0) differences.push(`${command}: ${missing.join(' | ')}`);
    }
    assert.deepEqual(differences, []);
  });
});
