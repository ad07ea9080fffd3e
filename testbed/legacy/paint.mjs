// A camera of one colour for each user, so that a test sees whose picture it is: the browser's own looks the same everywhere.

/** The colours that there are, as red, green and blue. */
export const colours = { red: [200, 0, 0], blue: [0, 0, 200] };

/** Gives a call a camera of a colour. It takes effect when Element Call is opened. */
export const paint = (call, colour) => call.context.addInitScript(camera, colours[colour]);

/** Whether a pixel is of that colour, as far as a codec keeps it. */
export const isPainted = (pixel, colour) => pixel !== undefined && colours[colour].every((value, at) => Math.abs(value - pixel[at]) < 70);

/** Runs in the page, before its scripts. */
function camera([red, green, blue]) {
  if (!navigator.mediaDevices) return; // not a page that may have one
  const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
  navigator.mediaDevices.getUserMedia = async (constraints) => {
    const stream = await open(constraints);
    for (const track of stream.getVideoTracks()) {
      stream.removeTrack(track);
      stream.addTrack(painted(track));
    }
    return stream;
  };

  /** A picture with a bar that wanders through its upper part, in place of a camera's. */
  function painted(track) {
    const canvas = Object.assign(document.createElement("canvas"), { width: 320, height: 180 });
    const context = canvas.getContext("2d");
    const settings = track.getSettings();
    let step = 0;
    const draw = () => {
      context.fillStyle = `rgb(${red} ${green} ${blue})`;
      context.fillRect(0, 0, canvas.width, canvas.height);
      context.fillStyle = "white";
      context.fillRect((step++ * 20) % canvas.width, 0, 40, 60);
    };
    draw();
    const timer = setInterval(draw, 200);
    const [canvasTrack] = canvas.captureStream(5).getVideoTracks();
    const stop = canvasTrack.stop.bind(canvasTrack);
    canvasTrack.stop = () => {
      clearInterval(timer);
      track.stop();
      stop();
    };
    canvasTrack.getSettings = () => ({ ...settings, width: canvas.width, height: canvas.height, frameRate: 5 });
    return canvasTrack;
  }
}
