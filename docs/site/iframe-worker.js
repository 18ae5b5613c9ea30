// The search on pages opened from a disk: browsers start no worker there, so its script runs in a hidden frame instead.
// mkdocs-material's plugin `offline` would fetch such a script from unpkg.com; it adds none if one has this name.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      const scope = frame.contentWindow;
      scope.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }));
      const script = scope.document.createElement("script");
      script.src = url;
      const loaded = new Promise(resolve => { script.onload = resolve; });
      scope.document.body.append(script);
      this.postMessage = data => loaded.then(() => scope.dispatchEvent(new scope.MessageEvent("message", { data })));
    }
  };
}
