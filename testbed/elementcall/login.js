// Logs the user of this origin in, once: a login is a new device with keys of
// its own, and the two belong together in this browser profile. Then opens the
// room in Element Call, or in the widget host with ?view=widget.
const status = document.getElementById("status");
const store = "matrix-auth-store"; // where Element Call looks

async function login({ homeserver, name, password }) {
  const response = await fetch(`${homeserver}/_matrix/client/v3/login`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({
      type: "m.login.password",
      identifier: { type: "m.id.user", user: name },
      password,
      initial_device_display_name: "callserver demo",
    }),
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(`${response.status} ${answer.errcode}: ${answer.error}`);
  return answer;
}

// A link survives a demo that was stopped and started again, but its session does not.
async function sessionIsValid({ homeserver }, session) {
  if (session?.homeserver !== homeserver) return false;
  const response = await fetch(`${homeserver}/_matrix/client/v3/account/whoami`, {
    headers: { authorization: `Bearer ${session.access_token}` },
  });
  return response.ok && (await response.json()).user_id === session.user_id;
}

async function keepSession(user) {
  const kept = JSON.parse(localStorage.getItem(store) ?? "null");
  if (await sessionIsValid(user, kept)) return;
  localStorage.clear();
  for (const database of await indexedDB.databases()) indexedDB.deleteDatabase(database.name);
  const { user_id, device_id, access_token } = await login(user);
  localStorage.setItem(
    store,
    JSON.stringify({ homeserver: user.homeserver, user_id, device_id, access_token, passwordlessUser: false }),
  );
}

try {
  const user = await (await fetch("/user.json")).json();
  await keepSession(user);
  const query = new URLSearchParams(location.search);
  const room = encodeURIComponent(query.get("room") ?? user.room);
  const intent = query.has("intent") ? `&intent=${query.get("intent")}` : "";
  location.replace(user.widget ? `/widget/?room=${room}${intent}` : `/room/#/?roomId=${room}`);
} catch (error) {
  status.textContent = `Cannot log in: ${error.message}`;
}
