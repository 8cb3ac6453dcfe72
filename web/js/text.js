// The page's words in English and Chinese.

const WORDS = {
  title: ["Segment Anything, in your browser", "在浏览器里分割一切"],
  promise: [
    "Click on anything, and get its mask. The model runs on this computer; your image never leaves it.",
    "点一下，就得到它的掩码。模型在这台电脑上运行，图像不会离开它。",
  ],
  language: ["中文", "English"],
  include: ["This", "选中"],
  exclude: ["Not this", "排除"],
  box: ["Box", "框"],
  mode: ["What a click means", "点击的含义"],
  undo: ["Undo", "撤销"],
  redo: ["Redo", "重做"],
  newObject: ["New object", "新对象"],
  everything: ["Everything", "分割一切"],
  stop: ["Stop", "停止"],
  objects: ["Objects", "对象"],
  remove: ["Remove {0}", "删除 {0}"],
  rename: ["Name of {0}", "{0} 的名称"],
  whichMask: ["Which mask?", "哪一个掩码？"],
  mask: ["Mask {0}, predicted IoU {1}", "掩码 {0}，预测 IoU {1}"],
  take: ["Take home", "下载"],
  saveMask: ["Mask PNG", "掩码 PNG"],
  saveCutout: ["Cut-out PNG", "抠图 PNG"],
  saveCoco: ["COCO JSON", "COCO JSON"],
  savePrompts: ["Prompts JSON", "提示 JSON"],
  images: ["Images", "图像"],
  open: ["Open your own", "打开自己的图像"],
  drop: ["Drop the image here", "把图像放在这里"],
  canvas: [
    "The image. The arrow keys move a place, Enter clicks there, Shift + Enter clicks off the object.",
    "图像。方向键移动位置，回车点击，Shift + 回车排除。",
  ],
  loading: ["Loading the model: {0} of {1} MB", "正在加载模型：{0} / {1} MB"],
  preparing: ["Preparing the model …", "正在准备模型……"],
  encoding: ["{0} encodes the image, once for all clicks …", "{0} 正在编码图像，只需一次……"],
  decoding: ["decoding …", "解码中……"],
  searching: ["{0} looks for everything: {1} %", "{0} 正在查找所有对象：{1}%"],
  foundNothing: ["Nothing found. Click on what you want.", "没有找到。请点击你想要的东西。"],
  found: ["{0} masks found. Select one in the list, and click to correct it.", "找到 {0} 个掩码。在列表中选择一个，点击即可修正。"],
  ready: [
    "Click: this. Right click or Shift + click: not this. Drag: a box.",
    "单击：选中。右键或 Shift + 单击：排除。拖动：画框。",
  ],
  readyTouch: ["Tap on something. For more, choose “Not this” or “Box”.", "点一下某个东西。还可以选“排除”或“框”。"],
  onlyBackground: [
    "Only background clicks: click on the object too, or draw a box around it.",
    "只有背景点：请再点一下对象，或画一个框。",
  ],
  about: ["{0} · {1} pixels ({2} %) · predicted IoU {3} · {4}", "{0} · {1} 像素（{2}%）· 预测 IoU {3} · {4}"],
  aboutThree: [
    "{0} · mask {5} of 3 · {1} pixels ({2} %) · predicted IoU {3} · {4}",
    "{0} · 掩码 {5}/3 · {1} 像素（{2}%）· 预测 IoU {3} · {4}",
  ],
  reduced: ["Reduced to {0} × {1} pixels.", "已缩小为 {0} × {1} 像素。"],
  notAnImage: ["{0} is not an image that this browser can open.", "浏览器无法打开图像 {0}。"],
  cannotRun: [
    "This browser lacks WebAssembly SIMD or DecompressionStream, which the model needs. Chrome 97, Firefox 114 and Safari 16.4, and newer ones, have both.",
    "此浏览器缺少模型所需的 WebAssembly SIMD 或 DecompressionStream。Chrome 97、Firefox 114、Safari 16.4 及更新版本都支持。",
  ],
  failed: ["Something failed: {0}. Reload the page to try again.", "出错了：{0}。请刷新页面重试。"],
  model: [
    "The model is lite, 7 million parameters, trained by this project: small enough for a page, and not Meta's SAM. The notebooks show what it does well and badly, and how to take Meta's models instead.",
    "模型是本项目训练的 lite，700 万参数：小到可以放进网页，但不是 Meta 的 SAM。笔记本说明它的长处和短处，以及如何换用 Meta 的模型。",
  ],
  keys: ["Keys", "快捷键"],
  keyList: [
    "Z undo · Y redo · N new object · Delete remove it · 1 2 3 which mask · I this · X not this · B box · E everything",
    "Z 撤销 · Y 重做 · N 新对象 · Delete 删除 · 1 2 3 选择掩码 · I 选中 · X 排除 · B 框 · E 分割一切",
  ],
  notebooks: ["The notebooks", "笔记本"],
  notebooksWhy: [
    "Twelve Jupyter notebooks explain what happens here, step by step. Download one and open it in JupyterLab.",
    "十二个 Jupyter 笔记本一步一步讲解这里发生的事。下载后用 JupyterLab 打开。",
  ],
  licence: [
    "Code and weights: Apache-2.0. ONNX Runtime Web: MIT. Photographs: scikit-image.",
    "代码与权重：Apache-2.0。ONNX Runtime Web：MIT。照片：scikit-image。",
  ],
};

const LANGUAGES = ["en", "zh-CN"];
let language = navigator.language.toLowerCase().startsWith("zh") ? 1 : 0;

export function text(key, ...values) {
  return WORDS[key][language].replace(/\{(\d)\}/g, (_, number) => values[number]);
}

export function number(value) {
  return value.toLocaleString(LANGUAGES[language]);
}

// Write the words into every element with data-text, data-label (for screen readers) or data-title.
export function translate() {
  document.documentElement.lang = LANGUAGES[language];
  document.title = `${text("title")} · sam-nb`;
  for (const element of document.querySelectorAll("[data-text]")) element.textContent = text(element.dataset.text);
  for (const element of document.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", text(element.dataset.label));
  }
}

export function switchLanguage() {
  language = 1 - language;
  translate();
}
