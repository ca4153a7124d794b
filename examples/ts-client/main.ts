// Runs a command in a container, feeds it input, prints its output, follows its log; nothing is left behind.
// node --disable-warning=ExperimentalWarning examples/ts-client/main.ts [image]   (DOCKER_HOST says where the daemon is)
import { Client } from '#client/client.ts';
import { errorKind } from '#types/errors.ts';

const image = process.argv[2] ?? 'busybox';
using client = new Client();

try {
  await using container = await client.containers.run({
    Image: image,
    Cmd: ['sh', '-c', 'while true; do date; sleep 1; done'],
  });

  // A second process in it: write to its input, close only that, read the rest of its output.
  const { Id } = await client.execs.create(container.id, {
    Cmd: ['sort'],
    AttachStdin: true,
    AttachStdout: true,
    AttachStderr: true,
  });
  using sort = await client.execs.start(Id);
  sort.duplex.end('pear\napple\n');
  console.log((await sort.text()).stdout.trim());

  // Streams are async iterators; leaving the loop or aborting the signal ends the request.
  let lines = 0;
  for await (const { data } of container.logs({ follow: true, signal: AbortSignal.timeout(10_000) })) {
    process.stdout.write(data);
    if (++lines === 3) break;
  }
} catch (error) {
  console.error(errorKind(error), (error as Error).message);
  process.exitCode = 1;
}
