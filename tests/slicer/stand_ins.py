"""Plain widgets in place of Slicer's own, as far as the panel uses those: ``qt_harness`` says what that leaves out.

A property that is not there is never read: each time, PySide6 gives back one reference to None too many, and the process dies.
"""

from __future__ import annotations


def loader(base):  # noqa: C901  # the classes need Qt, which is imported here
    """A loader of ``.ui`` files that knows Slicer's widgets.

    Args:
        base: Qt's own, QUiLoader.
    """
    import shiboken6
    from PySide6 import QtCore, QtWidgets

    class Collapsible(QtWidgets.QWidget):
        """A title that can be pressed, above what it shows."""

        def __init__(self, parent=None):
            super().__init__(parent)
            self._title, self._collapsed, self._hidden = QtWidgets.QToolButton(self), False, []
            self._title.setToolButtonStyle(QtCore.Qt.ToolButtonTextBesideIcon)
            self._title.setAutoRaise(True)
            self._title.clicked.connect(lambda *_: self.setCollapsed(not self._collapsed))

        def setText(self, text):
            self._title.setText(text)

        def text(self):
            return self._title.text()

        def isCollapsed(self):
            return self._collapsed

        def setCollapsed(self, collapsed):
            self._collapsed = bool(collapsed)
            self._arrange()

        def _arrange(self):
            self._title.setArrowType(QtCore.Qt.RightArrow if self._collapsed else QtCore.Qt.DownArrow)
            for child in self.findChildren(QtWidgets.QWidget, options=QtCore.Qt.FindDirectChildrenOnly):
                if child is not self._title:
                    child.removeEventFilter(self)
                    if self._collapsed and not child.isHidden():
                        child.hide()
                        self._hidden.append(child)
                    elif not self._collapsed and child in self._hidden:
                        self._hidden.remove(child)
                        child.show()
                    child.installEventFilter(self)
            height = self._title.sizeHint().height()
            if self.layout() is not None:
                self.layout().setContentsMargins(4, height + 2, 4, 2)
            self.setMaximumHeight(height if self._collapsed else 16777215)
            self._title.resize(self.width(), height)

        def eventFilter(self, child, event):
            if self._collapsed and event.type() == QtCore.QEvent.ShowToParent:
                child.hide()
                self._hidden.append(child)
            return False

        def showEvent(self, event):
            self._arrange()
            super().showEvent(event)

        def resizeEvent(self, event):
            self._title.resize(self.width(), self._title.sizeHint().height())
            super().resizeEvent(event)

        text = QtCore.Property(str, text, setText)
        collapsed = QtCore.Property(bool, isCollapsed, setCollapsed)

    class ctkPathLineEdit(QtWidgets.QLineEdit):  # Qt tells kinds apart by their names
        """The path, and that it changes; as CTK's, it does not tell that it was emptied."""

        currentPathChanged = QtCore.Signal(str)

        def __init__(self, parent=None):
            super().__init__(parent)
            self.textChanged.connect(lambda text: text and self.currentPathChanged.emit(text))

        currentPath = QtCore.Property(str, QtWidgets.QLineEdit.text, QtWidgets.QLineEdit.setText)

    class Nodes(QtWidgets.QComboBox):
        """Of qMRMLNodeComboBox: the scene's volumes and models by their names, also after one is renamed."""

        def setMRMLScene(self, scene):
            for tag in getattr(self, "_tags", ()):
                self._scene.RemoveObserver(tag)
            self._scene, self._nodes, self._tags = scene, [], []
            if scene is not None:
                events = scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndCloseEvent, scene.EndImportEvent
                self._tags = [scene.AddObserver(event, lambda *_: self._changed()) for event in events]
                self._list()

        def _changed(self):
            if shiboken6.isValid(self):
                self._list()
            else:  # the real one goes with its observers
                self.setMRMLScene(None)

        def _list(self):
            self._nodes = []
            for kind in ("vtkMRMLScalarVolumeNode", "vtkMRMLModelNode"):
                found = self._scene.GetNodesByClass(kind)
                found.UnRegister(None)
                self._nodes += [found.GetItemAsObject(i) for i in range(found.GetNumberOfItems())]
            self._nodes = [node for node in self._nodes if not node.GetHideFromEditors()]
            self.clear()
            self.addItems([node.GetName() or "" for node in self._nodes])

        def currentNode(self):
            index = self.currentIndex()
            return self._nodes[index] if 0 <= index < len(self._nodes) else None

        def setCurrentNode(self, node):
            self._list()
            self.setCurrentIndex(self._nodes.index(node))

    made = {"ctkCollapsibleButton": Collapsible, "ctkPathLineEdit": ctkPathLineEdit, "qMRMLNodeComboBox": Nodes}

    class Loader(base):
        def createWidget(self, kind, parent=None, name=""):
            if kind not in made:
                return super().createWidget(kind, parent, name)
            widget = made[kind](parent)
            widget.setObjectName(name)
            return widget

    return Loader()
