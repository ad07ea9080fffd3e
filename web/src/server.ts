// What the page asks of the server that it came from. Paths are relative to the page, so that it works below a prefix.

export interface Settings {
  /** The server hands out tokens itself: development on this machine. */
  development: boolean;
}

/** The base URL that livekit-client gets: it appends rtc/v1 itself. */
export function serverURL(page: string): string {
  const url = new URL('.', page);
  url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
  url.search = url.hash = '';
  return url.href.replace(/\/$/, '');
}

export async function settings(get: typeof fetch = fetch): Promise<Settings> {
  const response = await get('web/settings.json');
  if (!response.ok) throw new Error(`The server answered ${response.status}.`);
  return (await response.json()) as Settings;
}

/** A development token. The identity stays the same over reloads of a tab, so that nobody meets their own ghost. */
export async function developmentToken(room: string, name: string, identity: string, post: typeof fetch = fetch): Promise<string> {
  const response = await post('web/token', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ room, name, identity }),
  });
  if (!response.ok) throw new Error((await response.text()).trim() || `The server answered ${response.status}.`);
  return ((await response.json()) as { token: string }).token;
}

/** Who this tab is: made up once. */
export function tabIdentity(store: Pick<Storage, 'getItem' | 'setItem'> = sessionStorage): string {
  const known = store.getItem('identity');
  if (known) return known;
  const bytes = crypto.getRandomValues(new Uint8Array(8));
  const fresh = 'web-' + Array.from(bytes, (b) => b.toString(16).padStart(2, '0')).join('');
  store.setItem('identity', fresh);
  return fresh;
}

/** The room that a link names: /#lobby. */
export function linkedRoom(hash: string): string {
  try {
    return decodeURIComponent(hash.replace(/^#/, ''));
  } catch {
    return '';
  }
}
