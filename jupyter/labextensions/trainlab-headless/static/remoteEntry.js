// "Run headless" in JupyterLab: saves the open notebook and opens the board's form for it, which shows its parameters.
// Written by hand as the remote of webpack's module federation that JupyterLab loads: `init` is given the modules that
// JupyterLab shares, `get` returns ours. So there is no build, and nothing of JupyterLab's is loaded twice.
(() => {
  'use strict';

  const COMMAND = 'trainlab:run-headless';
  const FORM = 'board/start';
  let shared;

  async function load(name) {
    const versions = Object.values(shared[name] ?? {});
    if (!versions.length) throw new Error(`JupyterLab shares no ${name}`);
    return (await versions[versions.length - 1].get())();
  }

  async function plugin() {
    const [notebook, apputils, coreutils] = await Promise.all(
      ['@jupyterlab/notebook', '@jupyterlab/apputils', '@jupyterlab/coreutils'].map(load)
    );
    return {
      id: 'trainlab-headless:plugin',
      description: 'Opens the form that runs the open notebook headless.',
      autoStart: true,
      requires: [notebook.INotebookTracker],
      optional: [apputils.ICommandPalette],
      activate: (app, tracker, palette) => {
        app.commands.addCommand(COMMAND, {
          label: 'Run headless',
          caption: 'Run headless: choose settings, then it runs on without this browser',
          isEnabled: () => tracker.currentWidget !== null,
          execute: () => open(app, tracker.currentWidget, apputils.Notification, coreutils)
        });
        // by whether a notebook is open
        tracker.currentChanged.connect(() => app.commands.notifyCommandChanged(COMMAND));
        palette?.addItem({ command: COMMAND, category: 'Notebook Operations' });
      }
    };
  }

  async function open(app, panel, notification, { PageConfig, URLExt }) {
    if (!panel) return;
    const context = panel.context;
    const path = app.serviceManager.contents.localPath(context.path);
    const place = `${PageConfig.getOption('preferredPath')}/`; // notebooks/, below which the board knows programs
    const name = path.startsWith(place) ? path.slice(place.length) : path;
    const form = `${URLExt.join(PageConfig.getBaseUrl(), FORM)}?notebook=${encodeURIComponent(name)}`;
    const link = [{ label: 'Open the form', callback: () => void window.open(form, '_blank', 'noopener') }];
    const unwritable = context.model.readOnly || context.contentsModel?.writable === false;
    if (context.model.dirty && unwritable) {
      const text = 'This notebook cannot be saved: what runs is the file, without your changes.';
      notification.warning(text, { actions: link, autoClose: false });
      return;
    }
    const tab = window.open('about:blank', '_blank'); // now: browsers open none that come long after a click
    if (context.model.dirty) {
      await context.save().catch(() => {});
      if (context.model.dirty) { // JupyterLab has said why
        tab?.close();
        return;
      }
    }
    if (tab) {
      tab.opener = null;
      tab.location.replace(form);
    } else {
      notification.info('The browser has opened no new tab.', { actions: link, autoClose: false });
    }
  }

  window._JUPYTERLAB = window._JUPYTERLAB ?? {};
  window._JUPYTERLAB['trainlab-headless'] = {
    init: scope => {
      shared = scope;
    },
    get: async name => {
      if (name !== './extension') throw new Error(`no module ${name}`);
      const found = await plugin();
      return () => ({ __esModule: true, default: found });
    }
  };
})();
