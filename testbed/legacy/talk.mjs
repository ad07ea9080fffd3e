// What the tests of bridged calls say and read in rooms, besides the calls themselves.
import { PATIENCE_MS } from "../elementcall/call.mjs";
import { eventually } from "../process/eventually.mjs";

const MEMBER = "org.matrix.msc3401.call.member";

/** Numbers what this process sent, so that no two are taken for one. */
let sent = 0;

/** Sends an event to a room. */
export const send = (user, room, type, content) =>
  user.request("PUT", `v3/rooms/${encodeURIComponent(room)}/send/${type}/${user.name}${sent++}`, content);

/** Says something in a room. */
const say = (user, room, body) => send(user, room, "m.room.message", { msgtype: "m.text", body });

/** The latest events of a room, the newest first. */
export const events = async (user, room) => (await user.request("GET", `v3/rooms/${encodeURIComponent(room)}/messages?dir=b&limit=60`)).chunk;

/** Gives a command, waits for the bot's answer and returns its text: in an encrypted room what cannot be read is empty. */
export async function command(user, room, body) {
  const { event_id: id } = await say(user, room, body);
  const { content } = await eventually(`an answer to ${body}`, PATIENCE_MS, async () =>
    (await events(user, room)).find(({ content }) => content["m.relates_to"]?.["m.in_reply_to"]?.event_id === id),
  );
  return content.body ?? "";
}

/** Has the bot in the room. */
export async function inviteBot(user, bot, room) {
  await user.act("invite", bot, room);
  await eventually("the bot is in the room", PATIENCE_MS, async () => {
    const members = await user.state(room, "m.room.member");
    return members.some(({ state_key: key, content }) => key === bot.id && content.membership === "join") || undefined;
  });
}

/** Waits until nobody is declared a member of the room's call but these users. */
export const expectMembers = (user, room, users) =>
  eventually(`members of the call: ${users.map(({ id }) => id).join(", ") || "nobody"}`, PATIENCE_MS, async (seen) => {
    const members = (await user.state(room, MEMBER)).filter(({ content }) => content.device_id);
    seen(members.map(({ state_key: key }) => key));
    return members.map(({ sender }) => sender).sort().join() === users.map(({ id }) => id).sort().join() || undefined;
  });

/** How a user is called in a room, as another one there sees it. */
export const nameOf = async (witness, room, { id }) =>
  (await witness.state(room, "m.room.member")).find(({ state_key: key }) => key === id)?.content.displayname;

/** Waits until a user is shown in a room under a name; undefined for none. */
export const expectName = (user, room, { id }, name) =>
  eventually(`${id} is ${name} in the room`, PATIENCE_MS, async (seen) => {
    const member = (await user.state(room, "m.room.member")).find(({ state_key: key }) => key === id);
    seen(member?.content);
    return (member && (member.content.displayname ?? undefined) === name) || undefined;
  });
