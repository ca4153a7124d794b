/** `system dial-stdio`: standard input and output become one connection to the daemon; the far end of ssh://. */
import type { Session } from '../session.ts';

/** `system dial-stdio`. */
export async function dialStdio(session: Session): Promise<number> {
  const api = await session.connect();
  const socket = await api.dial();
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  socket.once('error', reject).once('close', () => resolve());
  process.stdin.on('error', () => socket.end());
  process.stdin.pipe(socket);
  socket.pipe(process.stdout, { end: false });
  // What the daemon still sends after our end is passed on; when it has ended nothing more can come.
  socket.once('end', () => socket.destroy());
  await promise;
  process.stdin.destroy();
  return 0;
}
